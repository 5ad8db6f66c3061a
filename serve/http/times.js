// When images were recorded, in hours of their plate's series, by what their paths say: as cellnet.images.times has it, which
// says the rules. Numbers of frames are no hours here (cellnet predict --hours-between).
const ELAPSED = /(?<![A-Za-z0-9])(\d{1,3})d(\d{1,2})h(\d{1,2})m(?![A-Za-z0-9])/g, MILLISECONDS = /[ -]time \d+ - (\d{1,12}) ?ms\)/g;
const DATE = String.raw`(?<!\d)((?:19|20)\d\d)[y._-]?(0[1-9]|1[0-2])[m._-]?(0[1-9]|[12]\d|3[01])d?`, DAY = new RegExp(String.raw`${DATE}(?!\d)`);
const MOMENT = new RegExp(String.raw`${DATE}[T _-]{1,3}(?:(\d{4}(?:\d\d)?)|(\d\d)([:.h-])(\d\d)(?:(?:\6|m)(\d\d)s?|m)?)(?!\d)(Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d))?`, "g");
const WORD_OF_TIME = /(?<![A-Za-z0-9.,])[Tt]?=?(\d{1,4}(?:[.,]\d+)?) ?(h|hrs?|hours?|min|minutes?|days?)(?![A-Za-z0-9])|(?<![A-Za-z0-9])(day)[ _-]?(\d{1,3})(?![0-9A-Za-z])/gi;
const FRAME = /(?<![A-Za-z0-9])[Tt](?:p|P|ime(?:[Pp]oint)?)?[ _=-]?(\d{1,6})(?![0-9A-Za-z])/g, FRAMES = /(?:^|\/)[Tt]ime[Pp]oint_?(\d{1,6})(?=\/)/g;
const HOURS_OF = { h: 1, m: 1 / 60, d: 24 };
const wholes = (text, expression) => [...text.matchAll(expression)].map(([, number]) => Number(number));
function elapsedIn(text) {
  const times = [...text.matchAll(ELAPSED)].map(([, days, hours, minutes]) => Number(days) * 24 + Number(hours) + minutes / 60);
  return times.length ? times : wholes(text, MILLISECONDS).map(number => number / 3_600_000);
}
function wordsOfTime(text) {
  return [...text.matchAll(WORD_OF_TIME)].map(([, number, unit, day, ofDay]) => Number((number ?? ofDay).replace(",", ".")) * HOURS_OF[(unit ?? day)[0].toLowerCase()]);
}
function withTimes(places, paths) { // folders that are called after times, two at least, are one plate over time
  const isTime = name => [ELAPSED, WORD_OF_TIME].some(form => name.replace(form, "") === "" && name);
  const called = [...new Set(places.map(({ folder }) => folder))].filter(folder => isTime(folder.slice(folder.lastIndexOf("/") + 1)));
  const ofOne = new Map(grouped(called, above).filter(([, held]) => held.length > 1).flatMap(([plate, held]) => held.map(folder => [folder, plate])));
  const merged = places.map(place => ({ ...place, folder: ofOne.get(place.folder) ?? place.folder, hours: null }));
  for (const [, indexes] of grouped(merged.keys(), index => merged[index].folder)) {
    const hours = timesOf(indexes.map(index => merged[index]), indexes.map(index => paths[index]));
    for (const [number, index] of indexes.entries()) merged[index].hours = hours[number];
  }
  return merged;
}
function timesOf(places, paths) { // of a plate, by the first rule by which images of a well differ
  const stems = paths.map(path => path.slice(path.lastIndexOf("/") + 1)), known = times => times, none = times => times.map(() => null);
  const folders = paths.map((path, index) => above(path.startsWith(places[index].folder) ? path.slice(places[index].folder.length) : path));
  const numbers = places.map(({ well, column }, index) => wholes(stems[index], FRAME).filter(number => !(/^T\d/.test(well) && number === column)));
  const rules = [[stems.map(elapsedIn), known], [momentsIn(stems), times => sinceFirst(times, stems)], [stems.map(wordsOfTime), known],
    [folders.map(folder => elapsedIn(folder).length ? elapsedIn(folder) : wordsOfTime(folder)), known],
    [places.map(({ frame }) => /^\d+$/.test(frame ?? "") ? [Number(frame)] : []), none], [numbers, none], [paths.map(path => wholes(path, FRAMES)), none]];
  const held = rules.filter(([found]) => found.some(of => of.length)), differing = held.filter(([found]) => differ(places, found));
  const days = stems.map(stem => stem.match(DAY)?.slice(0, 1) ?? []);
  if (!held.length || (!differing.length && differ(places, days))) return none(paths);
  const [found, say] = (differing.length ? differing : held)[0], place = placeOfTime(found);
  return say(found.map(of => of.length === 1 || (of.length && place !== null) ? of[place ?? 0] : null));
}
function differ(places, found) { // whether a rule finds different times for images of one well
  const ofWell = grouped(found.keys(), index => places[index].well).map(([, indexes]) => indexes.filter(index => found[index].length));
  return ofWell.some(indexes => new Set(indexes.map(index => JSON.stringify(found[index]))).size > 1);
}
function placeOfTime(found) { // which of several times in a name is the one by which the names differ; null where that is open
  const longest = Math.max(...found.map(of => of.length)), there = found.filter(of => of.length);
  if (there.some(of => of.length !== longest)) return null;
  const differing = Array.from({ length: longest }, (_, place) => place).filter(place => new Set(there.map(of => of[place])).size > 1);
  return differing.length < 2 ? differing[0] ?? 0 : null;
}
function momentsIn(stems) { // seconds since 1970; none where all are numbers like 20261129_0012, and -1 where zones are mixed
  const found = stems.map(stem => [...stem.matchAll(MOMENT)].map(momentOf).filter(Boolean)), all = found.flat();
  if (all.every(({ mayBeNumber }) => mayBeNumber)) return stems.map(() => []);
  const zoned = all.some(({ hasZone }) => hasZone);
  return found.map(of => of.map(({ seconds, hasZone }) => hasZone === zoned ? seconds : -1));
}
function momentOf([, year, month, day, whole, ...clock]) {
  const [hour, , minute, second = "", zone] = whole ? [whole.slice(0, 2), "", whole.slice(2, 4), whole.slice(4), clock[4]] : clock;
  const date = new Date(0), [, sign, hours, minutes] = zone?.match(/^([+-])(\d\d):?(\d\d)$/) ?? [, "+", 0, 0];
  date.setUTCFullYear(year, month - 1, day);
  if (date.getUTCDate() !== Number(day) || hour > 23 || minute > 59 || second > 59 || hours > 23 || minutes > 59) return null; // a number that looks like a date
  const seconds = date / 1000 + hour * 3600 + minute * 60 + Number(second) - `${sign}1` * (hours * 3600 + minutes * 60);
  return { seconds, hasZone: zone !== undefined, mayBeNumber: Boolean(whole) && hour === "00" };
}
function sinceFirst(times, stems) { // hours since the first scan, each image at the time of its scan
  const usable = [...times.keys()].filter(index => times[index] !== null && times[index] >= 0), told = times.map(() => null);
  const hours = scansOf(usable.map(index => times[index] / 3600), usable.map(index => stems[index].replace(MOMENT, "")));
  for (const [number, index] of usable.entries()) told[index] = hours[number];
  return told;
}
function scansOf(hours, keys) { // `keys` are the same for one site
  const order = [...hours.keys()].sort((one, other) => hours[one] - hours[other]), last = new Map(), repeats = [], scans = [];
  for (const index of order) {
    if (hours[index] > last.get(keys[index])) repeats.push(hours[index] - last.get(keys[index]));
    last.set(keys[index], hours[index]);
  }
  const shortest = repeats.length ? repeats.reduce((one, other) => Math.min(one, other)) : 1;
  let begun = new Map();
  for (const index of order) {
    const again = begun.get(keys[index]) < hours[index];
    if (!scans.length || again || hours[index] - hours[scans.at(-1).at(-1)] > shortest / 2) { scans.push([]); begun = new Map(); }
    scans.at(-1).push(index);
    if (!begun.has(keys[index])) begun.set(keys[index], hours[index]);
  }
  const middles = scans.map(scan => quantile(scan.map(index => hours[index]), .5)), told = [];
  for (const [number, scan] of scans.entries()) for (const index of scan) told[index] = middles[number] - middles[0];
  return told;
}
