// A whole transfer, as processes on loopback: how fast the source is free, what a GiB costs each role in CPU time, and how much memory each one holds.
//
// The destination takes in 100 MB/s at most, so that at the exit the intermediates hold nearly everything: what they hold then, beyond what they held at
// the start, is compared with what they keep. The image is a file like the heap of a server (host/cli/demo/heap.ts).

import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { RoleProcess } from '#abdm/host/cli/demo/child.js';
import { writeHeapFile } from '#abdm/host/cli/demo/heap.js';
import { formatBytes, parseSize } from '#abdm/host/cli/sizes.js';
import type { Summary } from '#abdm/host/summary.js';

const GIB = 2 ** 30;
const INTERMEDIATES = 3;

/** Memory of a process, in bytes; null where there is no /proc. */
function residentBytes(pid: number): number | null {
  try {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) * 1024;
  } catch {
    return null;
  }
}

/** On the disk, and in the page cache: neither its writing nor its reading from a disk is measured. */
function settle(path: string): void {
  const file = openSync(path, 'r+');
  fsyncSync(file);
  const buffer = new Uint8Array(2 ** 20);
  while (readSync(file, buffer) > 0);
  closeSync(file);
}

interface Line {
  type: 'transfer';
  compress: string;
  imageBytes: number;
  exitTimeMs: number;
  exitBytesPerS: number;
  totalMs: number;
  wireBytes: number;
  cpuSecondsPerGiB: { source: number; destination: number };
  peakRssBytes: { source: number; destination: number };
  /** Of each intermediate, at the exit: what it keeps, and what it holds beyond what it held at the start. */
  intermediates: { keptBytes: number; residentBytes: number | null }[];
}

async function transfer(directory: string, image: string, imageBytes: number, compress: string): Promise<Line> {
  const memory = String(imageBytes);
  const nodes = Array.from({ length: INTERMEDIATES }, () => {
    return new RoleProcess('intermediate', ['--listen', '127.0.0.1:0', '--memory', memory]);
  });
  const running = [...nodes];
  try {
    const addresses = await Promise.all(nodes.map((node) => node.listening()));
    const before = nodes.map(({ pid }) => residentBytes(pid));
    const out = join(directory, 'merged');
    const destination = new RoleProcess('merge', [`a=file:${out}`, '--listen', '127.0.0.1:0', '--rate', '100MB']);
    running.push(destination);
    const to = await destination.listening();
    const how = ['--to', to, '--intermediates', addresses.join(','), '--compress', compress];
    const source = new RoleProcess('eject', [`a=file:${image}`, ...how]);
    running.push(source);
    const left = await source.summary();
    const after = nodes.map(({ pid }) => residentBytes(pid));
    const arrived = await destination.summary();
    rmSync(out);
    const perGiB = ({ cpuSeconds }: Summary) => cpuSeconds / (imageBytes / GIB);
    return {
      type: 'transfer',
      compress,
      imageBytes,
      exitTimeMs: left.exitTimeMs!,
      exitBytesPerS: imageBytes / (left.exitTimeMs! / 1000),
      totalMs: arrived.totalMigrationTimeMs!,
      wireBytes: left.wireBytes.source!,
      cpuSecondsPerGiB: { source: perGiB(left), destination: perGiB(arrived) },
      peakRssBytes: { source: left.peakRssBytes, destination: arrived.peakRssBytes },
      intermediates: left.nodes.map(({ bytes }, i) => ({
        keptBytes: bytes,
        residentBytes: after[i] == null || before[i] == null ? null : after[i] - before[i],
      })),
    };
  } finally {
    await Promise.all(running.map((role) => role.stop()));
  }
}

function print(line: Line): void {
  const { compress, imageBytes, exitTimeMs, exitBytesPerS, wireBytes, cpuSecondsPerGiB, peakRssBytes } = line;
  console.log(`${formatBytes(imageBytes)}, --compress ${compress}, three intermediates on loopback:`);
  console.log(
    `  exit           ${Math.round(exitTimeMs)} ms, ${formatBytes(exitBytesPerS)}/s of image, ${formatBytes(wireBytes)} on the wire`,
  );
  for (const role of ['source', 'destination'] as const) {
    const cpu = `${cpuSecondsPerGiB[role].toFixed(2)} CPU s/GiB`;
    console.log(`  ${role.padEnd(13)}  ${cpu}, peak memory ${formatBytes(peakRssBytes[role])}`);
  }
  for (const { keptBytes, residentBytes: held } of line.intermediates) {
    const more = held === null ? 'unknown' : `${formatBytes(held)} (${((held / keptBytes) * 100).toFixed(0)} % of it)`;
    console.log(`  intermediate   keeps ${formatBytes(keptBytes)}, holds ${more}`);
  }
}

const { values } = parseArgs({
  options: { size: { type: 'string', default: '1G' }, json: { type: 'boolean', default: false } },
});
const directory = mkdtempSync(join(tmpdir(), 'abdm-bench-'));
try {
  const image = join(directory, 'image');
  const bytes = parseSize(values.size);
  writeHeapFile(image, bytes);
  settle(image);
  if (!values.json) console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}`);
  for (const compress of ['lz4', 'none']) {
    const line = await transfer(directory, image, bytes, compress);
    if (values.json) console.log(JSON.stringify(line));
    else print(line);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
