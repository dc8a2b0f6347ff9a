// The judge of `npm run truth`: what it is there to find out, it finds out, and a run that is as promised it lets pass. Logs of guests are made up.
import { describe, expect, test } from 'vitest';
import type { Event } from '../../bench/faults/role.js';
import { type GuestState, type History, historyOf } from '../../bench/truth/history.js';
import {
  type Ending,
  type GuestEnd,
  judge,
  owners,
  placeOf,
  type RoleEnd,
  type VmEnd,
} from '../../bench/truth/judge.js';
import { KILLS, KIND_COUNT, type KillName, MODES, planOf } from '../../bench/truth/plan.js';
import { seedsOf } from '../../bench/truth/runner.js';

const state = (said: GuestState, operation: number, atMs: number): Event => ({
  type: 'state',
  state: said,
  operation,
  atMs,
  heardMs: 0,
});
const operations = (count: number, atMs: number): Event => ({
  type: 'operations',
  operations: count,
  ms: 250,
  atMs,
  heardMs: 0,
});

const SOURCE = [state('running', 0, 1000), operations(60, 1250), state('stopped', 100, 1400), state('left', 100, 1500)];
const DESTINATION = [
  state('waiting', 0, 900),
  state('loaded', 100, 1420),
  state('running', 100, 1450),
  operations(40, 1700),
];
const here = (events = SOURCE, killedAtMs: number | null = null) => historyOf('vm1 here', events, killedAtMs);
const there = (events = DESTINATION, killedAtMs: number | null = null) => historyOf('vm1 there', events, killedAtMs);

describe('what a guest ran', () => {
  test('is told by its states, and its summary ends the last of it', () => {
    expect(here().ran).toEqual([
      { fromOperation: 0, toOperation: 100, beganAtMs: 1000, endedAtMs: 1400, wasWhole: true },
    ]);
    const own = { fromOperation: 100, toOperation: 150, beganAtMs: 1450, endedAtMs: 1800 };
    const summary = { type: 'summary', ran: [own], wrongPages: 0, heardMs: 0 };
    expect(there([...DESTINATION, summary]).ran).toEqual([{ ...own, wasWhole: true }]);
    expect(there([...DESTINATION, summary])).toMatchObject({ state: 'running', wrong: [] });
  });

  test('ends when it is killed, with the operations that it had counted', () => {
    expect(there(DESTINATION, 1800).ran).toEqual([
      { fromOperation: 100, toOperation: 140, beganAtMs: 1450, endedAtMs: 1800, wasWhole: false },
    ]);
  });

  test('never ends if nobody says so', () => {
    expect(there().ran[0]!.endedAtMs).toBe(Number.POSITIVE_INFINITY);
  });

  test('was wrong if it says so, in an event or in its summary alone', () => {
    const wrong = { type: 'wrong', pfn: 7, operation: 120, what: 'version 3, not 4', heardMs: 0 };
    expect(there([...DESTINATION, wrong]).wrong).toEqual(['page 7 at operation 120: version 3, not 4']);
    expect(there([{ type: 'summary', ran: [], wrongPages: 2, heardMs: 0 }]).wrong).toHaveLength(1);
  });
});

describe('owners', () => {
  test('one after the other are one', () => {
    expect(owners([here(), there()])).toEqual([]);
    expect(owners([there(), here()])).toEqual([]);
    const resumed = [...SOURCE.slice(0, 3), state('running', 100, 1600), state('stopped', 130, 1900)];
    expect(owners([here(resumed)])).toEqual([]);
  });

  test('at the same time are two, even if they do nothing', () => {
    const idle = (began: number, ended: number) => [state('running', 0, began), state('stopped', 0, ended)];
    expect(owners([here(idle(1000, 1400)), there(idle(1400, 2000))])).toEqual([]);
    expect(owners([here(idle(1000, 1400)), there(idle(1395, 2000))])).toEqual([
      'two owners for 5.0 ms: vm1 here, then vm1 there',
    ]);
  });

  test('are two if the source goes on while the destination runs', () => {
    const both = [...SOURCE.slice(0, 3), state('running', 100, 1600)];
    const found = owners([here(both), there()]);
    expect(found).toContain('two owners for Infinity ms: vm1 there, then vm1 here');
  });

  test('are found out behind a short stretch within a long one', () => {
    const long = [state('running', 0, 1000), state('stopped', 100, 5000)];
    const short = [state('running', 100, 2000), state('stopped', 100, 2100)];
    const late = [state('running', 100, 3000), state('stopped', 120, 6000)];
    expect(owners([here(long), there(short), there(late)]).filter((one) => one.startsWith('two'))).toHaveLength(2);
  });

  test('have done operations twice if one began before the other had ended', () => {
    const early = DESTINATION.map((event) => (event.operation === 100 ? { ...event, operation: 95 } : event));
    expect(owners([here(), there(early)])).toEqual([
      '5 operations from 95 on were done twice: vm1 here, then vm1 there',
    ]);
  });

  test('have lost operations if one went on from later than the other had come to', () => {
    const late = DESTINATION.map((event) => (event.operation === 100 ? { ...event, operation: 103 } : event));
    expect(owners([here(), there(late)])).toEqual([
      '3 operations from 100 on were done by nobody: vm1 here, then vm1 there',
    ]);
  });

  test('do not come back from the dead', () => {
    const again = [...SOURCE.slice(0, 3), state('running', 150, 2500), state('stopped', 160, 2600)];
    const found = owners([here(again), there(DESTINATION, 1800)]);
    expect(found).toEqual(['it ran on although it had been killed: vm1 there, then vm1 here']);
  });
});

function guest(history: History, more: Partial<GuestEnd> = {}): GuestEnd {
  const alive = history.killedAtMs === null;
  const verified = alive && history.state === 'running' ? { wrong: 0, absent: [] } : null;
  return { history, alive, goesOn: verified && true, verified, ...more };
}

function role(name: string, code: number | null, outcome: string | null, more: Partial<RoleEnd> = {}): RoleEnd {
  return { name, killed: code === null, code, outcome, vms: [], lost: [], ...more };
}

const WAITING = there([state('waiting', 0, 900)]);
const RESUMED = here([...SOURCE.slice(0, 3), state('running', 100, 1600), state('stopped', 130, 1900)]);
const AT_SOURCE: VmEnd = {
  name: 'vm1',
  here: guest({ ...RESUMED, state: 'running' }),
  there: [guest(WAITING)],
  resumed: false,
};
const MOVED: VmEnd = { name: 'vm1', here: guest(here()), there: [guest(there())], resumed: false };
const STILL: VmEnd = {
  name: 'vm1',
  here: guest(here(SOURCE.slice(0, 3))),
  there: [guest(there(DESTINATION.slice(0, 2)))],
  resumed: false,
};

const COMPLETED: Ending = {
  mode: 'pre-copy',
  way: 'nodes',
  replicas: 1,
  kill: 'none',
  phase: 'stop',
  came: true,
  early: false,
  victim: 0,
  vms: [MOVED],
  source: role('source', 0, 'completed'),
  destination: role('destination', 0, 'completed'),
};
const ABORTED: Ending = {
  ...COMPLETED,
  kill: 'cancel-source',
  vms: [AT_SOURCE],
  source: role('source', 2, 'aborted'),
  destination: role('destination', 2, 'aborted'),
};
const PAUSED: Ending = {
  ...COMPLETED,
  kill: 'node-killed',
  vms: [STILL],
  source: role('source', 0, 'completed'),
  destination: role('destination', 3, 'paused-recoverable'),
};

describe('an end', () => {
  test.each([
    ['there', COMPLETED],
    ['here', ABORTED],
    ['still', PAUSED],
  ] as const)('is %s, and as promised', (place, ending) => {
    expect(placeOf(ending.vms[0]!, [])).toBe(place);
    expect(judge(ending)).toEqual([]);
  });

  test('at the source is none without a kill', () => {
    expect(judge({ ...ABORTED, kill: 'none' })).toEqual(['vm1 here: it should be there']);
    expect(judge({ ...ABORTED, came: false })).toEqual(['vm1 here: it should be there']);
  });

  test('is judged by guests, not by what abdm says', () => {
    expect(judge({ ...COMPLETED, vms: [STILL] })).toContain('vm1 still: it should be there');
    expect(judge({ ...ABORTED, vms: [MOVED] })).toContain('vm1 there: source says that it was aborted');
    expect(judge({ ...COMPLETED, kill: 'cancel-source', vms: [AT_SOURCE] })).toContain(
      'vm1 here: the source says completed',
    );
    const unsure: Ending = { ...COMPLETED, source: role('source', 3, 'paused-recoverable') };
    expect(judge(unsure)).toEqual(['vm1 there: the source says paused-recoverable']);
    expect(judge({ ...unsure, kill: 'link-cut' })).toEqual([]);
    const silent = { ...PAUSED, destination: role('destination', 0, 'completed') };
    expect(judge(silent)).toEqual(['vm1 still: nobody says so: completed, completed']);
  });

  test('of one VM of a gang is what is said of that one', () => {
    const gang = [
      { name: 'vm1', outcome: 'aborted' },
      { name: 'vm2', outcome: 'completed' },
    ];
    const ending: Ending = {
      ...COMPLETED,
      kill: 'destination-guest-killed',
      vms: [
        { ...AT_SOURCE, there: [guest(there([state('waiting', 0, 900)], 1450))] },
        { ...MOVED, name: 'vm2' },
      ],
      source: role('source', 2, 'aborted', { vms: gang }),
      destination: role('destination', 2, 'aborted', { vms: gang }),
    };
    expect(judge(ending)).toEqual([]);
    expect(judge({ ...ending, victim: 1 })).toContain('vm1 here: it should be there');
  });

  test('is none for a guest that does nothing any more', () => {
    const stuck = { ...MOVED, there: [guest(there(), { goesOn: false })] };
    expect(judge({ ...COMPLETED, vms: [stuck] })).toEqual(['vm1 there: its guest does nothing']);
  });

  test('at the source leaves nothing in the guest at the destination', () => {
    const loaded = { ...AT_SOURCE, there: STILL.there };
    expect(judge({ ...ABORTED, vms: [loaded] })).toEqual([
      'vm1 here: the guest at the destination is loaded, not waiting',
    ]);
  });

  test('with a node killed is completed if there was another copy, or time', () => {
    expect(judge({ ...PAUSED, replicas: 2 })).toEqual(['vm1 still: it should be there']);
    expect(judge({ ...PAUSED, early: true })).toEqual(['vm1 still: it should be there']);
  });

  test('of a guest that was killed where it ran is that nobody runs it', () => {
    const dead = { ...MOVED, there: [guest(there(DESTINATION, 1800))] };
    const ending: Ending = { ...COMPLETED, kill: 'destination-guest-killed', vms: [dead] };
    expect(judge(ending)).toEqual([]);
    const again = { ...dead, here: AT_SOURCE.here };
    expect(judge({ ...ending, vms: [again] })).toContain('vm1 here: it should be dead');
  });

  test('of a guest that was killed before it ran may be that what only it had is lost, once the source has left', () => {
    const killed = guest(there([state('waiting', 0, 900), state('loaded', 100, 1420)], 1500));
    const vm: VmEnd = { ...STILL, there: [killed, guest(WAITING)] };
    const lost = [{ vm: 'vm1', ranges: [[10, 12] as const] }];
    const ending: Ending = {
      ...PAUSED,
      kill: 'destination-guest-killed',
      vms: [vm],
      destination: role('destination', 4, 'aborted', { lost }),
    };
    expect(judge(ending)).toEqual([]);
    expect(judge({ ...ending, way: 'parked' })).toEqual(['vm1 lost: it should be here or there or still']);
    expect(judge({ ...ending, source: role('source', 3, 'paused-recoverable') })).toEqual([
      'vm1 lost: it should be here or there or still',
    ]);
  });

  test('after the source was killed may be that its operator lets the guest go on, unless it has run elsewhere', () => {
    const ending: Ending = { ...ABORTED, kill: 'source-killed', source: role('source', null, null) };
    expect(judge({ ...ending, vms: [{ ...AT_SOURCE, resumed: true }] })).toEqual([]);
    expect(judge({ ...ending, vms: [STILL] })).toContain('vm1 still: it should be here');
    const waits = { ...ending, vms: [STILL], destination: role('destination', 3, 'paused-recoverable') };
    expect(judge(waits)).toEqual([]);
  });
});

describe('a wrong byte', () => {
  test('is found out where a guest touched it, whoever has the VM then', () => {
    const wrong = { type: 'wrong', pfn: 7, operation: 120, what: 'stale', heardMs: 0 };
    const vm = { ...MOVED, there: [guest(there([...DESTINATION, wrong]))] };
    expect(judge({ ...COMPLETED, vms: [vm] })).toContain('vm1 there: wrong: page 7 at operation 120: stale');
  });

  test('is found out where nobody touched it', () => {
    const vm = { ...MOVED, there: [guest(there(), { verified: { wrong: 3, absent: [] } })] };
    expect(judge({ ...COMPLETED, vms: [vm] })).toEqual(['vm1 there: 3 pages are not what they must be']);
  });

  test('is an absent page too, unless it is named as lost', () => {
    const vm = { ...MOVED, there: [guest(there(), { verified: { wrong: 0, absent: [[10, 12]] } })] };
    const lost = (...ranges: [number, number][]): Ending => ({
      ...PAUSED,
      vms: [vm],
      destination: role('destination', 4, 'aborted', { lost: [{ vm: 'vm1', ranges }] }),
    });
    expect(judge(lost([8, 10], [11, 20]))).toEqual([]);
    expect(judge(lost([8, 10], [12, 20]))).toEqual(['vm1 there: absent, and not named as lost: pages 10-12']);
    expect(judge({ ...COMPLETED, vms: [vm] })).toContain('vm1 there: absent, and not named as lost: pages 10-12');
  });

  test('cannot be hidden behind an exit code that says nothing of lost pages', () => {
    const vm = { ...MOVED, there: [guest(there(), { verified: { wrong: 0, absent: [[10, 12]] } })] };
    const lost = [{ vm: 'vm1', ranges: [[10, 12] as const] }];
    expect(judge({ ...PAUSED, vms: [vm], destination: role('destination', 0, 'completed', { lost }) })).toEqual([
      'vm1 lost: exit code 0, not 4',
    ]);
  });
});

describe('a plan', () => {
  test('is decided by its seed alone', () => {
    for (const seed of [1, 77, 4711]) expect(planOf(seed)).toEqual(planOf(seed));
    expect(planOf(1)).not.toEqual(planOf(1 + KIND_COUNT));
  });

  test('has every mode with every kill, within as many seeds as there are kinds', () => {
    const kinds = new Set<string>();
    for (let seed = 1; seed <= KIND_COUNT; seed++) {
      const { mode, blow } = planOf(seed);
      kinds.add(`${mode} ${blow.kill}`);
    }
    const all = MODES.flatMap((mode) => (Object.keys(KILLS) as KillName[]).map((kill) => `${mode} ${kill}`));
    expect([...kinds].sort()).toEqual(all.sort());
    expect(KIND_COUNT).toBeLessThan(200);
  });

  test('stays within what 200 runs can take', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const { guests, nodes, replicas, way, blow } = planOf(seed);
      const bytes = guests.map(({ memoryBytes }) => memoryBytes);
      expect(Math.min(...bytes)).toBeGreaterThanOrEqual(4 * 2 ** 20);
      expect(bytes.reduce((a, b) => a + b)).toBeLessThanOrEqual(64 * 2 ** 20);
      for (const { workingSetBytes, memoryBytes } of guests) expect(workingSetBytes).toBeLessThanOrEqual(memoryBytes);
      expect(way === 'direct' ? nodes === 0 && replicas === 1 : nodes >= replicas).toBe(true);
      expect(KILLS[blow.kill]).toHaveProperty(way);
    }
  });

  test('is found by its mode', () => {
    const seeds = seedsOf(5, 20, 'hybrid');
    expect(seeds.map((seed) => planOf(seed).mode)).toEqual(Array(5).fill('hybrid'));
    expect(seeds[0]).toBeGreaterThanOrEqual(20);
    expect(seedsOf(3, 8, null)).toEqual([8, 9, 10]);
  });
});
