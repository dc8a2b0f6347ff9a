// abdm nodes: who announces, with how much room. Once, after everybody has had time to announce; or live, until it is ended.

import { AbdmError } from '../../bindings/errors.js';
import { type AnnouncementCounts, HEARD_ALL_MS, NodeIndex, type NodeInfo } from '../mam/index.js';
import { DEFAULT_PLACES } from '../mam/places.js';
import { OPEN, type Security } from '../wire/security.js';
import { EXIT, onSignal } from './exit.js';
import type { Output } from './output.js';
import { formatBytes } from './sizes.js';

const REDRAW_MS = 1_000;

export interface NodesOptions {
  readonly security?: Security;
  /** Where to listen. Default 239.77.77.77:7077. */
  readonly announcements?: readonly string[];
  /** Until a signal, rather than once. */
  readonly watch?: boolean;
  readonly json?: boolean;
}

/**
 * Prints the nodes and resolves to the exit code.
 * @throws {AbdmError} `PEER_UNREACHABLE` if nobody announced; `USAGE` if nobody can listen there.
 */
export async function nodes(output: Output, options: NodesOptions): Promise<number> {
  const { security = OPEN, announcements = DEFAULT_PLACES, watch = false, json = false } = options;
  const index = await NodeIndex.open({ security, announcements });
  let ended = false;
  let stopShowing = () => {};
  try {
    await new Promise<void>((resolve) => {
      onSignal(() => {
        ended = true;
        resolve();
      });
      if (watch && !json && process.stderr.isTTY) stopShowing = redraw(index);
      else if (watch) showChanges(output, index);
      else setTimeout(resolve, HEARD_ALL_MS).unref();
    });
    const found = index.nodes();
    if (!watch) show(output, found);
    // Where there are no nodes, the error says it.
    const text = found.length > 0 ? countsText(index.counts) : undefined;
    output.event({ type: 'nodes', nodes: found.length, counts: index.counts } as { type: string }, text);
    if (found.length === 0 && !watch && !ended) throw nobody(announcements, index.counts);
    return EXIT.completed;
  } finally {
    stopShowing();
    index.close();
  }
}

/** The whole table on the terminal, at each change and every second; returns what ends that. */
function redraw(index: NodeIndex): () => void {
  let drawn = 0;
  const draw = () => {
    const found = index.nodes();
    const lines = found.length > 0 ? nodeLines(found) : ['no intermediate announces itself so far'];
    // The cursor does not go back to what has left the screen.
    const most = Math.max((process.stderr.rows || 24) - 4, 1);
    if (lines.length > most) lines.splice(most, Infinity, `... and ${lines.length - most} more`);
    const refused = countsText(index.counts);
    if (refused) lines.push(refused);
    const columns = (process.stderr.columns || 80) - 1;
    const text = lines.map((line) => `${line.slice(0, columns)}\n`).join('');
    process.stderr.write(`${drawn > 0 ? `\x1b[${drawn}F` : ''}\x1b[J${text}`);
    drawn = lines.length;
  };
  draw();
  index.onChange(draw);
  const timer = setInterval(draw, REDRAW_MS);
  return () => clearInterval(timer);
}

/** A line for each node that changes. */
function showChanges(output: Output, index: NodeIndex): void {
  let before = new Map<string, NodeInfo>();
  index.onChange(() => {
    const now = new Map(index.nodes().map((node) => [node.address, node]));
    const gone = [...before.values()].filter(({ address }) => !now.has(address));
    const changed = [...now.values()].filter((node) => !sameNode(node, before.get(node.address)));
    for (const node of gone) output.event(nodeEvent(node, 'gone'), `${node.address} is gone`);
    show(output, changed);
    before = now;
  });
}

function show(output: Output, shown: readonly NodeInfo[]): void {
  const lines = nodeLines(shown);
  for (const [i, node] of shown.entries()) output.event(nodeEvent(node), lines[i]);
}

/** One line a node, in columns. */
export function nodeLines(shown: readonly NodeInfo[]): string[] {
  const rows = shown.map((node) => [
    node.address,
    stateOf(node),
    `${formatBytes(node.freeBytes)} free of ${formatBytes(node.memoryBytes)}`,
    `load ${node.load.toFixed(2)}`,
    `${node.connections} connections`,
    node.heardMsAgo === null ? 'never heard' : `heard ${(node.heardMsAgo / 1000).toFixed(1)} s ago`,
  ]);
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]!.length))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}

function nodeEvent(node: NodeInfo, state: 'up' | 'suspect' | 'gone' = stateOf(node)): { type: string } {
  return { type: 'node', state, ...node } as { type: string };
}

function stateOf({ suspect }: NodeInfo): 'up' | 'suspect' {
  return suspect ? 'suspect' : 'up';
}

// What is shown of it beside its load and when it was heard.
function sameNode(node: NodeInfo, before: NodeInfo | undefined): boolean {
  return before?.id === node.id && before.suspect === node.suspect && before.freeBytes === node.freeBytes;
}

/** What was not believed, and why; undefined if everything was. */
export function countsText(counts: AnnouncementCounts): string | undefined {
  const reasons = [
    [counts.forged, 'made with another key, or forged'],
    [counts.replayed, 'replayed'],
    [counts.stale, 'stale: more than 30 s off the clock of this host'],
    [counts.malformed, 'malformed'],
    [counts.foreign, 'of another version of abdm'],
    [counts.ignored, 'of more nodes than are kept in mind'],
  ] as const;
  const texts = reasons.flatMap(([count, why]) => (count > 0 ? [`${count} ${why}`] : []));
  return texts.length > 0 ? `announcements not believed: ${texts.join('; ')}` : undefined;
}

function nobody(places: readonly string[], counts: AnnouncementCounts): AbdmError {
  const refused = countsText(counts);
  const advice =
    refused ?? 'do intermediates run with the same --announcements and --key, and does the network carry multicast?';
  return new AbdmError('PEER_UNREACHABLE', `no intermediate announces itself at ${places.join(', ')}: ${advice}`);
}
