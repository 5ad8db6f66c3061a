// What to label first of the images that were answered: unlike the training, of an unsure lineage, of few to many cells, and
// of as many wells as there are; the tenth is drawn by chance, to score by. `cellnet suggest` also knows a bank's labels.
const FIRST = 10, FEWEST = 12 /* images of which a list is shorter than they are */, SURE = .9, WIDE = .5 /* as cellnet.evaluation.suggesting has them */;
const listed = new Map(); // how each row that is listed was drawn
function lookFirst() {
  const left = notSaidOf($("rows").rows).filter(row => !row.matches(".failed"));
  listed.clear();
  if (left.length >= FEWEST) {
    const [random] = left.toSorted((one, other) => byChance(one) - byChance(other));
    for (const row of chosenOf(left.filter(row => row !== random))) listed.set(row, "chosen");
    listed.set(random, "random");
  }
  showFirst();
}
function showFirst() { // those of the list of which nothing was said yet; when that was done, the next
  const left = notSaidOf(listed.keys());
  if (listed.size && !left.length) return lookFirst();
  $("first").hidden = !left.length;
  $("firsts").replaceChildren(...left.map(row => make("li", "", firstButton(row, listed.get(row)))));
}
function notSaidOf(rows) { // an image that was given again is the one of which something was said
  const imageOf = row => { const { entry: { file }, answer } = said.get(row); return [answer.image, file.size, file.lastModified].join("\n"); };
  const done = new Set([...kept.keys()].map(imageOf));
  return [...rows].filter(row => !done.has(imageOf(row)));
}
function firstButton(row, drawn) {
  const { answer, entry } = said.get(row), well = entry.place.well, name = answer.image.split("/").pop();
  const reason = drawn === "random" ? "random: for scoring" : reasonsOf(answer).join("; ") || "for the range of what was answered";
  const picture = answer.thumbnail ? [Object.assign(make("img"), { src: answer.thumbnail, alt: "" })] : [];
  const button = make("button", "quiet", ...picture, make("span", "", name), make("small", "", [well, reason].filter(Boolean).join(" · ")));
  button.type = "button"; button.onclick = () => { viewed = row; return choose("bench", false); };
  return button;
}
function chosenOf(rows) { // the one that is worth most, again and again; one more of a well is worth less
  const answers = rows.map(row => said.get(row).answer), wells = new Map(), chosen = new Set();
  const margins = ranksOf(answers.map(marginOf)), counts = ranksOf(answers.map(({ count }) => count ?? 0));
  const wellOf = index => { const { folder, well } = said.get(rows[index]).entry.place; return well && `${folder} ${well}`; };
  const worth = index => { // counts from few to many: a counter is least sure of many cells, and many alone teach little
    const apart = Math.min(.5, ...[...chosen].map(other => Math.abs(counts[index] - counts[other])));
    return (Math.max(margins[index], 2 * apart) + Number(Boolean(answers[index].unfamiliar))) / (1 + (wells.get(wellOf(index)) ?? 0));
  };
  while (chosen.size < Math.min(FIRST - 1, rows.length)) {
    const left = rows.map((_, index) => [worth(index), index]).filter(([, index]) => !chosen.has(index));
    const [, best] = left.reduce((one, other) => other[0] > one[0] ? other : one);
    chosen.add(best);
    if (wellOf(best)) wells.set(wellOf(best), (wells.get(wellOf(best)) ?? 0) + 1);
  }
  return [...chosen].map(index => rows[index]);
}
function marginOf({ probabilities }) { // how near the second lineage comes to the first
  const [first, second = 0] = Object.values(probabilities ?? {}).sort((one, other) => other - one);
  return first === undefined ? 0 : 1 - (first - second);
}
function ranksOf(values) { // from 0, the least, to 1; what is equal has the same
  const sorted = [...new Set(values)].sort((one, other) => one - other), rank = new Map(sorted.map((value, index) => [value, index / Math.max(1, sorted.length - 1)]));
  return values.map(value => rank.get(value));
}
function reasonsOf({ unfamiliar, probabilities, count, count_low: low, count_high: high }) {
  const [first, second] = Object.entries(probabilities ?? {}).sort((one, other) => other[1] - one[1]), whole = Math.round;
  return [unfamiliar && "unlike the training images", second && first[1] < SURE && `${first[0]} ${percent(first[1])}, or ${second[0]} ${percent(second[1])}`,
    low != null && high - low > 2 * WIDE * Math.max(count, 1) && `count ${whole(count)}, could be ${whole(low)} to ${whole(high)}`].filter(Boolean);
}
function byChance(row) { // by the name, so that it stays the same
  let hash = 2166136261;
  for (const sign of said.get(row).answer.image) hash = Math.imul(hash ^ sign.codePointAt(0), 16777619) >>> 0;
  hash = Math.imul(hash ^ hash >>> 16, 0x45d9f3b) >>> 0; // names that end alike are else near each other
  return hash;
}
const drawnOf = row => listed.get(row) ?? kept.get(row)?.record.drawn ?? "";
