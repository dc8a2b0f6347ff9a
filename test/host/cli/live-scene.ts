// Guests that are moved while they run: processes of their own at both ends, and what must be true of them when all is over.
import { expect } from 'vitest';
import { GuestProcess } from '../guest/guests.js';
import { Abdm, intermediates, type Outcome } from './processes.js';

/** One VM: where it runs, and where it is to run. */
export class Pair {
  readonly name: string;
  readonly here: GuestProcess;
  there: GuestProcess;
  /** Guests that were there before. */
  readonly before: GuestProcess[] = [];

  private constructor(name: string, here: GuestProcess, there: GuestProcess) {
    this.name = name;
    this.here = here;
    this.there = there;
  }

  static async of(name = 'vm', ...args: string[]): Promise<Pair> {
    const [here, there] = await Promise.all([GuestProcess.running(...args), GuestProcess.waiting()]);
    return new Pair(name, here, there);
  }

  get from(): string {
    return `${this.name}=guest:${this.here.socket}`;
  }

  get to(): string {
    return `${this.name}=guest:${this.there.socket}`;
  }

  /** Both guests, and those before, end: it had one owner at a time, in time and in what it did, and no page was wrong. Returns how often it ran where. */
  async end(): Promise<{ here: number; there: number }> {
    const guests = [this.here, this.there, ...this.before];
    const summaries = [];
    for (const guest of guests) {
      const { code, signal, summary, events } = await guest.abdm.stop();
      if (signal === 'SIGKILL') {
        summaries.push({ wrongPages: 0, ran: ranOf(events) });
        continue;
      }
      expect([code, summary.wrongPages]).toEqual([0, 0]);
      summaries.push(summary);
    }
    const ran = summaries.flatMap((summary) => summary.ran as Ran[]).sort((a, b) => a.beganAtMs - b.beganAtMs);
    for (const [i, { fromOperation, beganAtMs }] of ran.entries()) {
      if (i === 0) continue;
      expect(fromOperation).toBe(ran[i - 1]!.toOperation);
      expect(beganAtMs).toBeGreaterThanOrEqual(ran[i - 1]!.endedAtMs);
    }
    return { here: summaries[0].ran.length, there: summaries[1].ran.length };
  }

  /** All of its memory is there, and right, and it goes on. */
  async expectThere(): Promise<void> {
    expect(await this.there.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    await this.there.works(100);
    expect((await this.here.ask('status')).state).toBe('left');
  }

  /** It runs where it was, and nothing runs at the other end, which waits for another migration. */
  async expectHere(): Promise<void> {
    await this.here.works(100);
    expect(await this.here.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    expect((await this.there.ask('status')).state).toBe('waiting');
  }
}

interface Ran {
  fromOperation: number;
  toOperation: number;
  beganAtMs: number;
  endedAtMs: number;
}

/** What a guest that was killed had said of when it ran. */
// biome-ignore lint/suspicious/noExplicitAny: JSON, as a user's script reads it
function ranOf(events: any[]): Ran[] {
  const ran: Ran[] = [];
  let began: { operation: number; atMs: number } | null = null;
  for (const { type, state, operation, atMs } of events) {
    if (type !== 'state') continue;
    if (state === 'running') began = { operation, atMs };
    else if (began) {
      ran.push({ fromOperation: began.operation, toOperation: operation, beganAtMs: began.atMs, endedAtMs: atMs });
      began = null;
    }
  }
  return ran;
}

/** Nodes, a destination, a source. */
export class Live {
  readonly pairs: readonly Pair[];
  /** HOST:PORT of each, as on a command line. */
  readonly list: string;
  readonly nodes: readonly Abdm[];

  private constructor(pairs: readonly Pair[], nodes: readonly Abdm[], list: string) {
    this.pairs = pairs;
    this.nodes = nodes;
    this.list = list;
  }

  static async of(pairs: readonly Pair[], keepers: number): Promise<Live> {
    const { nodes, list } = await intermediates(keepers);
    return new Live(pairs, nodes, list);
  }

  merge(listen: string, ...args: string[]): Abdm {
    return new Abdm(['merge', ...this.pairs.map(({ to }) => to), '--listen', listen, ...args]);
  }

  /** A destination that listens, and its address. */
  async listening(...args: string[]): Promise<{ destination: Abdm; to: string }> {
    const destination = this.merge('127.0.0.1:0', ...args);
    return { destination, to: await destination.address() };
  }

  eject(to: string, mode: string, ...args: string[]): Abdm {
    const way = this.list === '' ? ['--direct'] : ['--intermediates', this.list];
    return new Abdm(['eject', ...this.pairs.map(({ from }) => from), '--to', to, '--mode', mode, ...way, ...args]);
  }
}

/** Both ended well. */
export function expectCompleted(...outcomes: Outcome[]): void {
  for (const { code, summary, stderr } of outcomes) {
    expect([summary?.reason ?? null, code, stderr]).toEqual([null, 0, '']);
    expect(summary.outcome).toBe('completed');
  }
}
