"""How smoothly the page's workbench moves: `python tests/benchmarks/workbench.py [SIDE] [CELLS]`.

A drawn frame of SIDE × SIDE pixels of 16 bits with CELLS cells is opened in headless Chromium, dragged, zoomed,
corrected and seen in other contrasts by real events of the mouse. It prints how many frames a second were drawn
meanwhile, and every task of the page's thread of over 50 ms, which a person would feel.
"""

import http.server
import shutil
import sys
import threading
from collections.abc import Callable

from selenium import webdriver
from selenium.webdriver import ActionChains

from serve.http.pages import page_html

FLAGS = "--headless=new --no-sandbox --disable-gpu --window-size=1600,1000"
OPEN = """
const [side, cells] = arguments, values = new Uint16Array(side * side);
let seed = 1; const random = () => (seed = seed * 16807 % 2147483647) / 2147483647;
for (let n = 0; n < values.length; n++) values[n] = 2000 + 300 * random() + 500 * Math.sin(n / 900);
const points = Array.from({ length: cells }, () => ({ x: random() * side, y: random() * side, probability: random() }));
document.getElementById("viewer").showModal(); document.getElementById("bench").hidden = false;
window.tasks = []; window.shots = 0;
const note = list => tasks.push(...list.getEntries().map(({ duration }) => duration));
new PerformanceObserver(note).observe({ type: "longtask" });
(function count() { shots++; requestAnimationFrame(count); })();
bench.open({ values, width: side, height: side }, { points, regions: [], count: null, lineage: null, unusable: null });
"""


class Page(http.server.BaseHTTPRequestHandler):
    """Gives the page alone."""

    def do_GET(self) -> None:
        body = page_html().encode() if self.path == "/" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    side, cells = (int(word) for word in [*sys.argv[1:], "2000", "3000"][:2])
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in FLAGS.split():
        options.add_argument(flag)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            browser.get(f"http://127.0.0.1:{server.server_address[1]}/")
            browser.execute_script(OPEN, side, cells)
            measure(browser, "opening", lambda mouse: mouse.pause(1))
            canvas = browser.find_element("css selector", "[data-bench=canvas]")
            measure(browser, "zooming", lambda mouse: wheel(mouse, canvas))
            measure(browser, "dragging", lambda mouse: drag(mouse, canvas))
            browser.find_element("css selector", "[data-tool=cells]").click()
            measure(browser, "adding cells", lambda mouse: click(mouse, canvas))
            low = browser.find_element("css selector", "[data-bench=low]")
            measure(browser, "contrast", lambda mouse: slide(mouse, low))
        finally:
            browser.quit()
            server.shutdown()


def measure(browser: webdriver.Chrome, what: str, does: Callable[[ActionChains], object]) -> None:
    """Do something, and say what it cost the page."""
    start = browser.execute_script("tasks = []; return [shots, performance.now()]")
    mouse = ActionChains(browser, duration=15)
    does(mouse)
    mouse.perform()
    drawn, now, tasks = browser.execute_script("return [shots, performance.now(), tasks]")
    speed = (drawn - start[0]) / (now - start[1]) * 1000
    longest = f"; over 50 ms: {len(tasks)}, the longest {max(tasks):.0f} ms" if tasks else "; no task over 50 ms"
    print(f"{what:14}{speed:5.0f} frames/s{longest}", flush=True)


def wheel(mouse: ActionChains, canvas: object) -> None:
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(canvas)
    for step in range(60):
        mouse.scroll_from_origin(origin, 0, -60 if step < 30 else 40)


def drag(mouse: ActionChains, canvas: object) -> None:
    mouse.move_to_element(canvas).click_and_hold()
    for step in range(120):
        mouse.move_by_offset(4 if step % 40 < 20 else -4, 3 if step % 20 < 10 else -3)
    mouse.release()


def click(mouse: ActionChains, canvas: object) -> None:
    for step in range(30):
        mouse.move_to_element_with_offset(canvas, 10 * step - 150, 7 * (step % 20) - 70).click()


def slide(mouse: ActionChains, slider: object) -> None:
    mouse.move_to_element_with_offset(slider, -60, 0).click_and_hold()
    for _ in range(40):
        mouse.move_by_offset(2, 0)
    mouse.release()


if __name__ == "__main__":
    main()
