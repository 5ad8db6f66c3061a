"""Overlays: cells are drawn where they were counted and add up to the count, and nothing is left in the network."""

import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.certainty.calibration import Calibration
from cellnet.config.train import ModelSpec
from cellnet.errors import DataError
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import fresh_network
from cellnet.prediction.density import density_map, find_cells
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import Card
from cellnet.reports import overlays as overlay
from cellnet.reports.overlays import STRIP_PX, draw_overlay


class CountFields(nn.Module):
    """Counts the white pixels of a tile, through a density map of 50×50 fields that knows where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Identity()

    def forward(self, input_B1HW: Tensor) -> Tensor:
        white_B1hw = 16 * nn.functional.avg_pool2d((input_B1HW * 0.15 + 0.5 > 0.9).float(), 4)
        return nn.functional.softplus(self.out(white_B1hw.expm1().log())).sum(dim=(1, 2, 3))


class Even(nn.Module):
    """Counts so many cells in any tile, everywhere alike."""

    def __init__(self, cells: float) -> None:
        super().__init__()
        self.cells = cells
        self.out = nn.Identity()

    def forward(self, input_B1HW: Tensor) -> Tensor:
        cells_B1hw = torch.full((len(input_B1HW), 1, 50, 50), self.cells / 2500)
        return nn.functional.softplus(self.out(cells_B1hw.expm1().log())).sum(dim=(1, 2, 3))


class Bright(nn.Module):
    """Logits of two lineages, dark and bright: the mean of a blur."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 1, 9, stride=4, padding=4, bias=False)
        nn.init.constant_(self.body.weight, 1 / 81)
        self.out = nn.Linear(1, 2, bias=False)
        self.out.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, input_B1HW: Tensor) -> Tensor:
        logits_BK: Tensor = self.out(torch.relu(self.body(input_B1HW)).mean(dim=(2, 3)))
        return logits_BK


@pytest.fixture
def counter(card: Callable[..., Card]) -> Callable[..., Predictor]:
    """`counter("density", views=8)`: a predictor that counts white pixels."""

    def make(
        architecture: str = "density", *, views: int = 1, ref: str = "regressor@1", **preprocess: object
    ) -> Predictor:
        of = card("count", **preprocess)
        spec = ModelSpec(architecture=architecture, width=4, depth=2, views=views)
        config = of.config.model_copy(update={"model": spec})
        return Predictor(ref, of.model_copy(update={"config": config}), CountFields())

    return make


@pytest.fixture
def classifier(card: Callable[..., Card]) -> Predictor:
    return Predictor("classifier@2", card("classify", classes=("dark", "bright")), Bright())


def with_dots(height: int, width: int, *places: tuple[int, int]) -> NDArray[np.uint8]:
    """A grey frame, white in these pixels (row, column)."""
    image_HW = np.full((height, width), 50, np.uint8)
    for place in places:
        image_HW[place] = 255
    return image_HW


def drawn(image_HW: NDArray[np.uint8], regressor: Predictor | None, classifier: Predictor | None) -> NDArray[np.int16]:
    """The pixels of an overlay (H, W, 3)."""
    png = draw_overlay(image_HW, pixel_um=None, classifier=classifier, regressor=regressor)
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED).astype(np.int16)


def colour(panel_HW3: NDArray[np.int16]) -> NDArray[np.int16]:
    """How far each pixel of the picture in a panel is from grey."""
    picture_HW3 = panel_HW3[STRIP_PX:-STRIP_PX]
    return picture_HW3.max(axis=2) - picture_HW3.min(axis=2)


@pytest.mark.parametrize("views", [1, 8])
def test_cells_are_where_they_were_counted_and_add_up_to_the_count(counter: Callable, views: int) -> None:
    image_HW = with_dots(400, 600, (30, 50), (30, 51), (250, 580))
    said, cells_HW = density_map(counter(views=views), image_HW)
    assert cells_HW.shape == (400, 600) and cells_HW.dtype == np.float32
    assert said.count == pytest.approx(3, rel=1e-5) and cells_HW.sum() == pytest.approx(3, rel=1e-5)
    assert cells_HW[15:45, 35:65].sum() == pytest.approx(2, rel=0.01)
    assert cells_HW[235:265, 565:].sum() == pytest.approx(1, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 8])
def test_places_of_a_frozen_counter_add_up_to_its_count(discs: Callable, card: Callable[..., Card], views: int) -> None:
    of = card("count", mean=0.5, std=0.5, intensity={"rule": "background", "low": -50, "high": 100})
    spec = ModelSpec(architecture="efficientnet_lite0", frozen=True, views=views)
    of = of.model_copy(update={"config": of.config.model_copy(update={"model": spec})})
    torch.manual_seed(0)
    network = fresh_network(of.config, 0, mean_count=9, start=imagenet_start("efficientnet_lite0"))
    torch.nn.init.normal_(network.out.last.weight, std=1.0)
    regressor = Predictor("regressor@1", of, network)
    image_HW, _ = discs(40, size=(400, 300))
    said, cells_HW = density_map(regressor, image_HW)
    assert said.count == regressor.predict(image_HW).count > 1
    assert cells_HW.shape == (480, 360) and (cells_HW >= 0).all() and np.ptp(cells_HW) > 0
    assert cells_HW.sum() == pytest.approx(said.count, rel=1e-4)


def test_the_cells_that_were_found_have_their_place_and_how_sure_each_is(counter: Callable) -> None:
    image_HW = with_dots(400, 600, (30, 50), (250, 580), (100, 300), (100, 302))
    said, cells = find_cells(counter(views=8), image_HW)
    assert said.count == pytest.approx(4, rel=1e-4) and cells is not None
    places = {(round(cell.y, -1), round(cell.x, -1)): cell.probability for cell in cells}
    assert places == pytest.approx({(30, 50): 1, (250, 580): 1, (100, 300): 1}, abs=0.03), "two in a field are one"
    half = Calibration(tiles=9, frames=5, scale=0.5, offset=0)
    plain = counter()
    unsure = Predictor(plain.ref, plain.card.model_copy(update={"calibration": half}), plain.network)
    _, cells = find_cells(unsure, image_HW)
    assert cells is not None and [cell.probability for cell in cells] == pytest.approx([1, 0.5], abs=0.03)


def test_in_an_empty_frame_no_cell_is_found_and_a_counter_of_whole_tiles_knows_no_places(counter: Callable) -> None:
    assert find_cells(counter(), with_dots(200, 300))[1] == []
    assert find_cells(counter("paper"), with_dots(200, 300, (30, 50)))[1] is None


def test_of_a_counter_that_was_fitted_to_a_plate_every_tile_has_the_cells_that_are_told(counter: Callable) -> None:
    plain = counter()
    calibration = Calibration(tiles=9, frames=5, scale=2, offset=-4)
    fitted = Predictor(plain.ref, plain.card.model_copy(update={"calibration": calibration}), plain.network)
    said, cells_HW = density_map(
        fitted, with_dots(200, 400, (30, 50), (100, 300), (slice(60, 70), slice(230, 370, 20)))
    )
    assert said.tile_outputs == pytest.approx([0, 2 * 71 - 4], rel=1e-4)
    assert (cells_HW[:, :220].sum(), cells_HW.sum()) == pytest.approx((0, 2 * 71 - 4), rel=1e-4, abs=1e-4)


def test_maps_of_many_tiles_in_several_batches_and_views_stay_in_order(counter: Callable) -> None:
    image_HW = with_dots(200, 70 * 200, (100, 67 * 200 + 40))
    _, cells_HW = density_map(counter(views=8), image_HW)
    assert cells_HW.shape == (17, 1200)
    assert np.unravel_index(cells_HW.argmax(), cells_HW.shape) == pytest.approx((8.5, 67.2 * 1200 / 70), abs=2)


def test_where_tiles_overlap_an_even_field_is_drawn_even(counter: Callable) -> None:
    image_HW = with_dots(300, 300, (slice(None, None, 10), slice(None, None, 10)))
    said, cells_HW = density_map(counter(), image_HW)
    assert len(said.boxes) == 4 and cells_HW.sum() == pytest.approx(900, rel=1e-4)
    thirds_33 = cells_HW.reshape(3, 160, 3, 160).sum(axis=(1, 3))
    assert thirds_33 == pytest.approx(100, rel=0.06), "those in the middle are seen by two tiles or four"


def test_a_cell_in_an_overlap_is_drawn_once(counter: Callable) -> None:
    said, cells_HW = density_map(counter(), with_dots(300, 300, (150, 152)))
    assert said.count == pytest.approx(4 * 0.75**2, rel=1e-4) and cells_HW.sum() == pytest.approx(said.count, rel=1e-4)
    assert np.unravel_index(cells_HW.argmax(), cells_HW.shape) == pytest.approx((240, 243), abs=5)
    assert cells_HW[220:260, 223:263].sum() == pytest.approx(said.count, rel=0.01)


def test_a_frame_of_another_magnification_is_drawn_as_it_was_recorded(counter: Callable) -> None:
    image_HW = with_dots(300, 600, (slice(40, 48), slice(500, 508)))
    said, cells_HW = density_map(counter(pixel_um=0.5), image_HW, 1.0)
    assert said.factor == 2 and cells_HW.shape == (300, 600)
    assert np.unravel_index(cells_HW.argmax(), cells_HW.shape) == pytest.approx((44, 504), abs=2)


def test_a_counted_cell_is_coloured_and_the_rest_stays_grey(counter: Callable) -> None:
    colour_HW = colour(drawn(with_dots(400, 600, (250, 300)), counter(), None))
    assert colour_HW[250, 300] > 100 and colour_HW[:230].max() == 0 and colour_HW[270:].max() == 0


def test_a_frame_without_cells_stays_grey(counter: Callable) -> None:
    assert colour(drawn(with_dots(400, 600), counter(), None)).max() == 0


def test_a_trace_of_a_cell_is_not_drawn_like_one(counter: Callable) -> None:
    card = counter().card
    faint, strong = (drawn(with_dots(200, 200), Predictor("r@1", card, Even(cells)), None) for cells in (0.2, 9))
    assert colour(faint).max() < 10 and colour(strong).min() > 100


def test_the_answered_lineage_is_coloured_where_it_shows(classifier: Predictor) -> None:
    image_HW = with_dots(200, 200, (slice(20, 60), slice(120, 160)))
    colour_HW = colour(drawn(image_HW, None, classifier))
    assert colour_HW.shape == (480, 480)
    assert colour_HW[60:130, 300:370].mean() > 5 * max(colour_HW[240:, :240].mean(), 1)


def test_a_tile_that_is_less_sure_is_coloured_less(classifier: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "grad_cam", lambda *told: np.ones((200, 200), np.float32))
    image_HW = with_dots(200, 400, (slice(150), slice(150)), (slice(30), slice(200, 230)))
    assert classifier.predict(image_HW).tile_outputs[:, 1] == pytest.approx([0.98, 0.54], abs=0.02)
    red_HW = drawn(image_HW, None, classifier)[STRIP_PX:-STRIP_PX, :, 2]
    assert red_HW[230, 120] > red_HW[230, 360] + 40 > 50 + 40


@pytest.mark.parametrize(
    ("rows", "columns", "most"), [(3, 3, 9), (8, 8, 64), (1, 66, 33), (9, 8, 20)], ids=lambda n: str(n)
)
def test_the_classifier_is_asked_in_so_many_tiles_and_the_others_are_dark(
    classifier: Predictor, monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, most: int
) -> None:
    asked = []
    monkeypatch.setattr(overlay, "grad_cam", lambda *told: asked.append(told) or np.zeros((200, 200), np.float32))
    picture_HW3 = drawn(np.full((rows * 200, columns * 200), 100, np.uint8), None, classifier)[STRIP_PX:-STRIP_PX]
    assert len(asked) == most
    share = (picture_HW3[..., 0] == 100).mean() / (picture_HW3[..., 0] <= 100).mean()
    assert share == pytest.approx(most / (rows * columns), abs=0.15)


@pytest.mark.parametrize(
    ("size", "picture"), [((200, 200), (480, 480)), ((400, 600), (400, 600)), ((2000, 3000), (800, 1200))]
)
def test_pictures_are_neither_small_nor_huge(
    counter: Callable, size: tuple[int, int], picture: tuple[int, int]
) -> None:
    assert drawn(with_dots(*size), counter(), None).shape == (picture[0] + 2 * STRIP_PX, picture[1], 3)


def test_two_models_are_drawn_side_by_side(counter: Callable, classifier: Predictor) -> None:
    image_HW = with_dots(300, 300, (150, 150))
    left, right = drawn(image_HW, counter(), None), drawn(image_HW, None, classifier)
    both = drawn(image_HW, counter(), classifier)
    assert np.array_equal(both[:, :480], left) and np.array_equal(both[:, -480:], right)
    assert both.shape == (480 + 2 * STRIP_PX, 480 + 8 + 480, 3)


def test_what_is_written_can_still_be_read_at_a_third_of_the_size(counter: Callable) -> None:
    strip_HW3 = drawn(with_dots(1000, 1200), counter(), None)[:STRIP_PX]
    rows = np.nonzero((strip_HW3 > 200).any(axis=(1, 2)))[0]
    assert rows.max() - rows.min() >= 24, "letters of 8 pixels are left"


def test_a_narrow_frame_has_room_for_its_caption(counter: Callable) -> None:
    assert drawn(with_dots(1200, 200), counter(), None).shape == (1200 + 2 * STRIP_PX, 480, 3)


def test_strips_say_which_model_counted_how_many(counter: Callable) -> None:
    image_HW = with_dots(400, 600, (20, 20))
    one = drawn(image_HW, counter(), None)
    assert (one[:STRIP_PX] > 200).any() and (one[-STRIP_PX:] > 200).any()
    for other in (
        drawn(image_HW, counter(ref="regressor@2"), None),
        drawn(with_dots(400, 600, (20, 20), (20, 21)), counter(), None),
    ):
        assert (other[:STRIP_PX] != one[:STRIP_PX]).any()
    again = drawn(image_HW, counter(ref="regressor-of-a-name-that-" + 9 * "goes-on-and-" + "@1"), None)
    assert again.shape == one.shape and (again[:STRIP_PX, -8:] < 100).all(), "a long caption is written smaller"


def test_a_lineage_of_any_letters_is_written(card: Callable[..., Card]) -> None:
    classifier = Predictor("c@1", card("classify", classes=("α\n\x1b[2J", "日本")), Bright())
    assert drawn(with_dots(200, 200), None, classifier).shape == (480 + 2 * STRIP_PX, 480, 3)


@pytest.mark.parametrize("architecture", ["residual", "paper"])
def test_a_counter_that_knows_no_places_writes_the_number_of_each_tile(counter: Callable, architecture: str) -> None:
    before, after = with_dots(400, 600, (390, 250)), with_dots(400, 600, (390, 250), (390, 251))
    assert density_map(counter(architecture), before)[1] is None
    one, other = (drawn(image_HW, counter(architecture), None) for image_HW in (before, after))
    assert colour(one).max() == 0
    rows, columns = np.nonzero((one != other)[STRIP_PX : STRIP_PX + 380].any(axis=2))
    assert rows.min() > 200 and rows.max() < 230 and columns.min() > 200 and columns.max() < 250


def test_tiles_that_overlap_are_drawn_as_parts_that_add_up(counter: Callable) -> None:
    """Four tiles of 400 cells that share a third of each side make 900, like four of 225 side by side."""
    shared = Predictor("r@1", counter("residual").card, Even(400))
    apart = Predictor("r@1", counter("residual", tile_px=(240, 240)).card, Even(225))
    assert shared.predict(with_dots(300, 300)).count == pytest.approx(900)
    one, other = drawn(with_dots(300, 300), shared, None), drawn(with_dots(480, 480), apart, None)
    assert np.array_equal(one, other)
    assert one[STRIP_PX + 240, 100, 0] > one[STRIP_PX + 242, 100, 0] + 50, "a border"


def test_the_same_picture_twice_and_the_networks_as_they_were(discs: Callable, card: Callable[..., Card]) -> None:
    torch.manual_seed(0)
    models = []
    for of, architecture in ((card("count"), "density"), (card("classify", classes=("a", "b")), "residual")):
        spec = ModelSpec(architecture=architecture, width=4, depth=2, views=1)
        of = of.model_copy(update={"config": of.config.model_copy(update={"model": spec})})
        models.append(Predictor("m@1", of, fresh_network(of.config, len(of.classes), mean_count=9)))
    before = [{name: value.clone() for name, value in model.network.state_dict().items()} for model in models]
    image_HW, _ = discs(40, size=(400, 300))
    kept_HW = image_HW.copy()
    pictures = [draw_overlay(image_HW, pixel_um=None, regressor=models[0], classifier=models[1]) for _ in range(2)]
    assert pictures[0] == pictures[1] and np.array_equal(image_HW, kept_HW)
    for model, weights in zip(models, before, strict=True):
        assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
        for layer in model.network.modules():
            assert not layer.training and not layer._forward_hooks and not layer._forward_pre_hooks
        assert all(weight.grad is None and weight.dtype == torch.float32 for weight in model.network.parameters())
    said, cells_HW = density_map(models[0], image_HW)
    assert said.count == models[0].predict(image_HW).count
    assert cells_HW.sum() == pytest.approx(said.count, rel=1e-4)


def test_a_network_that_fails_keeps_no_hook(counter: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = counter()
    monkeypatch.setattr(regressor.network, "forward", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        density_map(regressor, with_dots(200, 200))
    assert not regressor.network.out._forward_hooks


def test_pictures_drawn_at_once_by_one_network_are_those_drawn_one_by_one(counter: Callable) -> None:
    class Slow(CountFields):
        def forward(self, input_B1HW: Tensor) -> Tensor:
            time.sleep(0.05)
            return super().forward(input_B1HW)

    regressor = Predictor("regressor@1", counter().card, Slow())
    images = [with_dots(200, 200, (place, place)) for place in (20, 100, 180)]
    found = {}

    def draw(n: int) -> None:
        found[n] = drawn(images[n], regressor, None)

    threads = [threading.Thread(target=draw, args=(n,)) for n in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, image_HW in enumerate(images):
        assert np.array_equal(found[n], drawn(image_HW, counter(), None))


def test_16_bits_are_stretched_as_the_model_sees_them(counter: Callable) -> None:
    image_HW = np.linspace(1000, 3000, 480 * 480, dtype=np.uint16).reshape(480, 480)
    rule = {"rule": "range", "low": 1000, "high": 3000}
    picture_HW3 = drawn(image_HW, counter("residual", tile_px=(480, 480), intensity=rule), None)[STRIP_PX:-STRIP_PX]
    assert picture_HW3[:, 240, 0] == pytest.approx(np.linspace(0, 255, 480), abs=2)


def test_a_frame_smaller_than_a_tile_is_refused(counter: Callable, classifier: Predictor) -> None:
    for models in ({"regressor": counter(), "classifier": None}, {"regressor": None, "classifier": classifier}):
        with pytest.raises(DataError, match="smaller than the 200×200"):
            draw_overlay(with_dots(100, 300), pixel_um=None, **models)
