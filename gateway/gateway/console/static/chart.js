// Spend by day as bars, drawn by uPlot.

const DAY = 86400;
const HEIGHT = 180;

/** Every day from the first to the last, and what was spent on it; days without calls have 0. */
function series(usage, first, last) {
  const spent = new Map(usage.map((each) => [Date.parse(each.day) / 1000, each.cost_usd]));
  const days = [];
  for (let day = Date.parse(first) / 1000; day <= Date.parse(last) / 1000; day += DAY) days.push(day);
  return [days, days.map((day) => spent.get(day) ?? 0)];
}

/** Draw the bars into an element, as wide as it is, also when that changes. */
export function drawSpend(place, usage, first, last) {
  const { uPlot } = window;
  const style = getComputedStyle(document.documentElement);
  const [ink, line, fill] = ["--faint", "--line", "--link"].map((name) => style.getPropertyValue(name));
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  place.replaceChildren();
  place.hidden = false;
  const chart = new uPlot(
    {
      width: place.clientWidth,
      height: HEIGHT,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [axis, { ...axis, size: 80, values: (_, values) => values.map((value) => `${+value.toPrecision(3)} $`) }],
      series: [{}, { fill, stroke: fill, paths: uPlot.paths.bars({ size: [0.6, 40] }), points: { show: false } }],
    },
    series(usage, first, last),
    place,
  );
  const watching = new ResizeObserver(() => {
    if (place.contains(chart.root)) chart.setSize({ width: place.clientWidth, height: HEIGHT });
    else watching.disconnect();
  });
  watching.observe(place);
}
