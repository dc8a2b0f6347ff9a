// What people read of a summary, and the exit code that goes with it.
import { expect, test } from 'vitest';
import { exitCodeOf } from '#abdm/host/cli/exit.js';
import { summaryLines } from '#abdm/host/cli/summary.js';
import type { Summary } from '#abdm/host/summary.js';

const PLAIN: Summary = {
  type: 'summary',
  role: 'source',
  outcome: 'completed',
  reason: null,
  mode: 'stop',
  direct: false,
  vms: [],
  exitTimeMs: 1500,
  totalMigrationTimeMs: null,
  wireBytes: { source: 3e6, destination: null },
  nodes: [{ address: '10.0.0.1:7000', frames: 12, bytes: 3e6 }],
  cpuSeconds: 0.5,
  peakRssBytes: 1,
};

test('says how many copies there are, and that a VM is parked', () => {
  const plain = [
    'source: completed, exit after 1.50 s, 3.0 MB on the wire, 0.50 CPU s',
    '  10.0.0.1:7000: 12 frames, 3.0 MB',
  ];
  expect(summaryLines(PLAIN)).toEqual(plain);
  expect(summaryLines({ ...PLAIN, replicas: 1 })).toEqual(plain);
  expect(summaryLines({ ...PLAIN, replicas: 2, parked: true })[0]).toBe(
    'source: completed, parked, exit after 1.50 s, 2 copies of each frame, 3.0 MB on the wire, 0.50 CPU s',
  );
});

test('names the pages that are lost, the first ranges of them', () => {
  const ranges = (count: number) => Array.from({ length: count }, (_, i) => [i * 100, i * 100 + (i % 2) * 63] as const);
  const lost = (count: number) => ({ ...PLAIN, nodes: [], lost: [{ vm: 'a', ranges: ranges(count) }] });
  expect(summaryLines(lost(2))[1]).toBe('  a: lost pages 0, 100-163');
  expect(summaryLines(lost(11))[1]).toMatch(/^ {2}a: lost pages 0, 100-163, .*, 700-763 and 3 more ranges$/);
});

test('has an exit code: who has the VM, and whether it is whole', () => {
  const reason = (code: string) => ({ code, message: '' });
  const aborted: Summary = { ...PLAIN, outcome: 'aborted', reason: reason('PEER_GONE') };
  expect(exitCodeOf(PLAIN, true)).toBe(0);
  expect(exitCodeOf(aborted, false)).toBe(2);
  expect(exitCodeOf({ ...aborted, reason: reason('USAGE') }, false)).toBe(1);
  expect(exitCodeOf(aborted, true)).toBe(4);
  expect(exitCodeOf({ ...aborted, lost: [{ vm: 'a', ranges: [[1, 2]] }] }, false)).toBe(4);
  expect(exitCodeOf({ ...PLAIN, outcome: 'paused-recoverable' }, true)).toBe(3);
});
