// Results as one HTML file that needs nothing else: plots, what is promised, and all points.
import { formatBytes } from '#abdm/host/cli/sizes.js';
import { FIGURES } from './figures.js';
import { scaleOf } from './paper.js';
import { plot } from './plots.js';
import { groupsOf, type Point, type Spread } from './point.js';
import { type Promised, promisesOf } from './promises.js';
import { type Invocation, pointsIn, type Results } from './results.js';

const STYLE = `
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 2em auto; padding: 0 1.5em; }
  h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin: 2.2em 0 0.3em; }
  table { border-collapse: collapse; font-size: 13px; margin: 0.6em 0; }
  td, th { padding: 2px 10px 2px 0; text-align: right; vertical-align: top; white-space: nowrap; border-bottom: 1px solid #eee; }
  td:first-child, th:first-child, td.text, th.text { text-align: left; }
  .spread { color: #777; } .no { color: #b00020; font-weight: bold; } .yes { color: #1a7a2e; }
  .note { color: #555; } svg { max-width: 100%; height: auto; } code { font-size: 0.9em; }
  summary { cursor: pointer; color: #555; }
`;

export async function renderReport(results: Results): Promise<string> {
  const points = pointsIn(results);
  const promises = promisesOf(points);
  const sections: string[] = [];
  for (const group of groupsOf(points)) sections.push(await section(group, promises));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>abdm: live migration on a shaped network</title>
<style>${STYLE}</style>
<h1>Live migration on a shaped network</h1>
<p>Hosts are network namespaces whose cards are shaped with <code>tc tbf</code>; each role is a process of its own. Every point is the mean of its runs, beside it their standard
deviation and (from - to); bars in the plots go from the least to the most. After every run each page at the destination was read and held against what it must be,
and the times and operations at which the guests ran were held against each other.</p>
<p>Dotted: the original (Deshpande et al., <i>Scatter-Gather Live Migration of Virtual Machines</i>, read off its plots; guests of 5 GiB, links of 1 Gbit/s), times the factor that stands above
each plot. It made its destination slow by taking memory from it, this one's link is slow.</p>
${results.invocations.map(origin).join('\n')}
${sections.join('\n')}
</html>
`;
}

function origin({ command, date, machine, points }: Invocation): string {
  const { cpu, cores, memoryGiB, system, node, congestionControl, loadBefore } = machine;
  const figures = [...new Set(points.map(({ figure }) => figure))].sort((a, b) => a - b).join(', ');
  return `<p class="note">Figures ${figures}: <code>${html(command)}</code>, ${html(date)}; ${html(cpu)}, ${cores} cores, ${memoryGiB} GiB, ${html(system)}, Node ${html(node)},
TCP congestion control ${html(congestionControl)}, a load of ${loadBefore} before it began.</p>`;
}

async function section(points: readonly Point[], promises: readonly Promised[]): Promise<string> {
  const { figure, setting, lineBytesPerS } = points[0]!;
  const { vmBytes, source } = setting;
  const shown = FIGURES.find((one) => one.figure === figure)!;
  const own = promises.filter((one) => one.figure === figure && one.vmBytes === vmBytes && one.bitsPerS === source);
  const line = `The source's link carries ${formatBytes(lineBytesPerS)}/s of a TCP connection.`;
  const scaled = `The original's times are multiplied by ${scaleOf(vmBytes, source).toPrecision(3)}.`;
  return `<h2>${figure}. ${html(shown.title)}</h2>
<p class="note">Guests of ${gib(vmBytes)}, a source's link of ${source / 1e6} Mbit/s. ${line} ${figure <= 6 ? scaled : ''}</p>
${await plot(shown, points)}
${table(['promise', 'measured', 'where', 'promised', ''], own.map(promiseCells), [0, 2])}
<details><summary>All points</summary>
${table(HEADS, bySeries(points).map(cells), [0])}
</details>`;
}

/** In the order in which they are drawn. */
function bySeries(points: readonly Point[]): Point[] {
  const order = [...new Set(points.map(({ series }) => series))];
  return [...points].sort((a, b) => order.indexOf(a.series) - order.indexOf(b.series) || a.x - b.x);
}

function gib(bytes: number): string {
  return bytes >= 2 ** 30 ? `${Number((bytes / 2 ** 30).toFixed(2))} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
}

function promiseCells({ promise, value, at, of, limit, atLeast, holds }: Promised): string[] {
  const verdict = holds ? '<span class="yes">holds</span>' : '<span class="no">DOES NOT HOLD</span>';
  return [
    html(promise),
    number(value),
    `${html(at)} <span class="spread">(worst of ${of})</span>`,
    `${atLeast ? 'at least' : 'at most'} ${limit}`,
    verdict,
  ];
}

const HEADS = [
  'series',
  'x',
  'runs',
  'exit, s',
  'total, s',
  'line rate / exit',
  'from the source',
  'stands still, ms (most)',
  'operations kept (least)',
  'faults',
  'p50 / p99 / max, ms',
];

function cells(point: Point): string[] {
  const { series, x, runs, spread, faults, guestShare } = point;
  const s = (ms: number) => (ms / 1000).toFixed(2);
  const with_ = (text: string, over: Spread | undefined, show: (value: number) => string) =>
    over && runs > 1
      ? `${text} <span class="spread">&plusmn; ${show(over.sd)} (${show(over.min)} - ${show(over.max)})</span>`
      : text;
  return [
    html(series),
    String(x),
    String(runs),
    with_(s(point.exitTimeMs), spread.exitTimeMs, s),
    with_(s(point.totalMigrationTimeMs), spread.totalMigrationTimeMs, s),
    point.lineRateFraction.toFixed(3),
    formatBytes(point.wireBytes),
    `${number(point.downtimeMs)} (${number(spread.downtimeMs!.max)})`,
    guestShare === null ? '' : `${guestShare.toFixed(2)} (${spread.guestShare!.min.toFixed(2)})`,
    faults === null ? '' : String(faults.count),
    faults === null ? '' : [faults.p50Ms, faults.p99Ms, faults.maxMs].map(number).join(' / '),
  ];
}

export function number(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function table(heads: readonly string[], rows: readonly string[][], text: readonly number[]): string {
  if (rows.length === 0) return '';
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell, i) => `<${tag}${text.includes(i) ? ' class="text"' : ''}>${cell}</${tag}>`).join('')}</tr>`;
  return `<table>\n${row(heads, 'th')}\n${rows.map((cells) => row(cells, 'td')).join('\n')}\n</table>`;
}

function html(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
