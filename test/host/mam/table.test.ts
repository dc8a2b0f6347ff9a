import { describe, expect, it } from 'vitest';
import type { Announcement } from '#abdm/host/mam/announcement.js';
import { MAX_NODES, NodeTable } from '#abdm/host/mam/table.js';
import { announcement } from './ether.js';

const A = '10.0.0.1:7000';
const B = '10.0.0.2:7000';
const started = 1_800_000_000_000;
const from = (address: string, sequence: number, more: Partial<Announcement> = {}) =>
  announcement({ address, sequence, startedMs: started, ...more });

describe('the table of nodes', () => {
  it('shows who was heard, by address, and since when', () => {
    const table = new NodeTable(null);
    expect(table.hear(from(B, 1), 1000)).toBe('changed');
    expect(table.hear(from(A, 1, { load: 1.5 }), 1400)).toBe('changed');
    expect(table.nodes(2000)).toMatchObject([
      { address: A, heardMsAgo: 600, load: 1.5, freeBytes: 5e9, memoryBytes: 16e9, suspect: false, listed: false },
      { address: B, heardMsAgo: 1000, suspect: false },
    ]);
    expect(table.hear(from(A, 2), 2400)).toBe('same');
    expect(table.hear(from(A, 3, { freeBytes: 1 }), 2500)).toBe('changed');
  });

  it('suspects a node after three announcements are missed, once', () => {
    const table = new NodeTable(null);
    table.hear(from(A, 1), 0);
    expect(table.sweep(3500)).toBe(false);
    expect(table.nodes(3500)[0]!.suspect).toBe(false);
    expect(table.sweep(3501)).toBe(true);
    expect(table.nodes(3501)[0]!.suspect).toBe(true);
    expect(table.trust(A)).toBe(true);
    expect(table.sweep(10_000)).toBe(false);
    expect(table.nodes(10_000)[0]!.suspect).toBe(false);
    expect(table.hear(from(A, 2), 11_000)).toBe('same');
    expect(table.sweep(14_501)).toBe(true);
  });

  it('clears a suspicion with the next announcement, or by trust', () => {
    const table = new NodeTable(null);
    table.hear(from(A, 1), 0);
    expect(table.suspect(A, 100)).toBe(true);
    expect(table.suspect(A, 150)).toBe(false);
    expect(table.hear(from(A, 1), 200)).toBe('replayed');
    expect(table.nodes(200)[0]!.suspect).toBe(true);
    expect(table.hear(from(A, 2), 1000)).toBe('changed');
    expect(table.nodes(1000)[0]!.suspect).toBe(false);
    table.suspect(A, 1100);
    expect(table.trust(A)).toBe(true);
    expect(table.trust(A)).toBe(false);
    expect(table.suspect(B, 1200) || table.trust(B)).toBe(false);
  });

  it('takes each announcement once, and none that came before it', () => {
    const table = new NodeTable(null);
    table.hear(from(A, 5), 0);
    for (const sequence of [0, 4, 5]) expect(table.hear(from(A, sequence), 1)).toBe('replayed');
    expect(table.hear(from(A, 9), 1)).toBe('same');
  });

  it('replaces a node by the one that was started later at its address, and never back', () => {
    const table = new NodeTable(null);
    const [old, young] = [{ id: '1'.repeat(32) }, { id: '2'.repeat(32), startedMs: started + 5000 }];
    table.hear(from(A, 500, old), 0);
    expect(table.hear(from(A, 1, young), 1)).toBe('changed');
    expect(table.hear(from(A, 501, old), 2)).toBe('replayed');
    expect(table.nodes(2)).toMatchObject([{ id: young.id }]);
  });

  it('hides a node that said goodbye, whatever is replayed of it', () => {
    const table = new NodeTable(null);
    table.hear(from(A, 1), 0);
    expect(table.hear(from(A, 3, { leaving: true }), 1)).toBe('changed');
    expect(table.nodes(1)).toEqual([]);
    expect(table.hear(from(A, 2), 2)).toBe('replayed');
    expect(table.nodes(2)).toEqual([]);
    expect(table.hear(from(A, 1, { startedMs: started + 1 }), 3)).toBe('changed');
    expect(table.nodes(3)).toHaveLength(1);
  });

  it('forgets who is suspect and silent for a minute', () => {
    const table = new NodeTable(null);
    table.hear(from(A, 9), 0);
    table.sweep(4000);
    table.sweep(64_000);
    expect(table.nodes(64_000)).toHaveLength(1);
    expect(table.sweep(64_001)).toBe(true);
    expect(table.nodes(64_001)).toEqual([]);
    // Its clock was set back before it was started again.
    expect(table.hear(from(A, 1, { startedMs: 1 }), 64_002)).toBe('changed');
  });

  it('does not forget who is heard while connections to it fail', () => {
    const table = new NodeTable(null);
    for (let second = 0; second < 100; second++) {
      expect(table.hear(from(A, second), second * 1000)).not.toBe('replayed');
      table.suspect(A, second * 1000 + 1);
      table.sweep(second * 1000 + 2);
    }
    expect(table.nodes(100_000)).toMatchObject([{ suspect: true }]);
  });

  it('knows 256 nodes and no more, until one is forgotten', () => {
    const table = new NodeTable(null);
    for (let i = 0; i < MAX_NODES; i++) expect(table.hear(from(`10.0.1.1:${i + 1}`, 1), 0)).toBe('changed');
    expect(table.hear(from(A, 1), 0)).toBe('ignored');
    for (let i = 1; i < MAX_NODES; i++) table.hear(from(`10.0.1.1:${i + 1}`, 2), 60_000);
    table.sweep(4000);
    table.sweep(64_001);
    expect(table.hear(from(A, 2), 64_002)).toBe('changed');
    expect(table.nodes(64_002)).toHaveLength(MAX_NODES);
  });

  it('always shows listed nodes, and no others', () => {
    const table = new NodeTable([B, A]);
    const unheard = { id: null, freeBytes: 0, heardMsAgo: null, listed: true, suspect: false };
    expect(table.nodes(0)).toMatchObject([
      { ...unheard, address: A },
      { ...unheard, address: B },
    ]);
    expect(table.hear(from('10.0.0.3:7000', 1), 0)).toBe('ignored');
    expect(table.sweep(100_000)).toBe(false);
    expect(table.hear(from(A, 1), 100_000)).toBe('changed');
    table.hear(from(A, 2, { leaving: true }), 100_001);
    expect(table.nodes(100_002)).toMatchObject([
      { address: A, suspect: true, freeBytes: 5e9 },
      { address: B, suspect: false },
    ]);
    table.sweep(200_000);
    expect(table.nodes(200_000)).toMatchObject([{ ...unheard, address: A, suspect: true }, { address: B }]);
  });
});
