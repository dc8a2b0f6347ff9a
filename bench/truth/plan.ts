// A run, from its seed: what moves, how, and what happens to it meanwhile. Nothing else is decided by chance, and nothing later.
import { Random } from '../faults/random.js';

export const MODES = ['stop', 'pre-copy', 'post-copy', 'hybrid', 'auto'] as const;
export type Mode = (typeof MODES)[number];

/** Over nodes to a destination that is there; straight to it; over nodes to one that comes when the source has left. */
export type Way = 'nodes' | 'direct' | 'parked';

/**
 * When, by what can be seen of guests and roles:
 * setup    the source was started       moving   pages leave                   stop   the source's guest was stopped
 * loaded   the destination's guest has its execution state      running   it runs       exit   the source has left
 */
export const PHASES = ['setup', 'moving', 'stop', 'loaded', 'running', 'exit'] as const;
export type Phase = (typeof PHASES)[number];

/** When a kind of kill comes, by way; in a way that is not there it does not. */
type KillKind = Partial<Record<Way, readonly Phase[]>>;

/** In a direct migration the exit is the end at the destination too. */
const BEFORE_EXIT: readonly Phase[] = ['setup', 'moving', 'stop', 'loaded', 'running'];
/** The source, while the destination is not there yet; and the destination, once the source is not there any more. */
const PARKING: readonly Phase[] = ['setup', 'moving', 'stop'];
const TAKING: readonly Phase[] = ['loaded', 'running', 'exit'];
const AT_ONCE: readonly Phase[] = ['setup'];

/** What can happen, in which ways and when. */
export const KILLS = {
  none: { nodes: AT_ONCE, direct: AT_ONCE, parked: AT_ONCE },
  'node-killed': { nodes: PHASES, parked: PHASES },
  'node-stopped': { nodes: PHASES, parked: PHASES },
  'node-full': { nodes: AT_ONCE, parked: AT_ONCE },
  'source-killed': { nodes: BEFORE_EXIT, direct: BEFORE_EXIT, parked: PARKING },
  'destination-killed': { nodes: PHASES, direct: BEFORE_EXIT, parked: TAKING },
  'source-guest-killed': { nodes: BEFORE_EXIT, direct: BEFORE_EXIT, parked: PARKING },
  'destination-guest-killed': { nodes: PHASES, direct: BEFORE_EXIT, parked: TAKING },
  'link-cut': { nodes: BEFORE_EXIT, direct: BEFORE_EXIT },
  'cancel-source': { nodes: BEFORE_EXIT, direct: BEFORE_EXIT, parked: PARKING },
  'cancel-destination': { nodes: PHASES, direct: BEFORE_EXIT },
} satisfies Record<string, KillKind>;
export type KillName = keyof typeof KILLS;

/** What the kill does, and when. A kind of kill uses of it what it needs. */
export interface Blow {
  readonly kill: KillName;
  readonly phase: Phase;
  /** How deep in the phase, in [0, 1). */
  readonly share: number;
  /** The VM whose moment it is, and whose guest it meets. */
  readonly victim: number;
  /** The node that it meets; there is none in a direct migration. */
  readonly node: number;
  /** One of several ways to do it, in [0, 1). */
  readonly how: number;
  /** How long something lasts, or until somebody is started again. */
  readonly lastsMs: number;
}

/** A guest, as `abdm guest` is told. */
export interface GuestPlan {
  readonly name: string;
  readonly seed: number;
  readonly memoryBytes: number;
  readonly workingSetBytes: number;
  readonly pattern: 'uniform' | 'zipf' | 'streaming';
  readonly opsPerS: number;
  readonly writes: number;
  readonly vcpus: number;
  /** `mixed` is a file with pages of all kinds. */
  readonly content: 'random' | 'zero' | 'mixed';
  readonly common: number;
}

export interface Plan {
  readonly seed: number;
  readonly mode: Mode;
  readonly way: Way;
  readonly replicas: number;
  readonly nodes: number;
  readonly guests: readonly GuestPlan[];
  /** Page data, bytes a second; null: no limit. */
  readonly sourceRate: number | null;
  readonly destinationRate: number | null;
  readonly maxDowntimeMs: number | null;
  readonly rounds: number | null;
  /** The guests run for so long before the source is started. */
  readonly warmUpMs: number;
  readonly blow: Blow;
}

const MIB = 2 ** 20;
/** Of a gang. */
const MOST_BYTES = 64 * MIB;

/** What is left of a page on the wire, roughly. */
const WIRE_SHARE = { random: 1, mixed: 0.5, zero: 0.02 } as const;

interface Kind {
  readonly mode: Mode;
  readonly way: Way;
  readonly kill: KillName;
}

/** The execution state of the others is never at the nodes. */
const PARKED_MODES: readonly Mode[] = ['stop', 'pre-copy'];

/** Every mode with every way and kill that go together, in an order in which neighbours differ. */
const KINDS: readonly Kind[] = (() => {
  const all = MODES.flatMap((mode) =>
    (Object.keys(KILLS) as KillName[]).flatMap((kill) =>
      (Object.keys(KILLS[kill]) as Way[])
        .filter((way) => way !== 'parked' || PARKED_MODES.includes(mode))
        .map((way): Kind => ({ mode, way, kill })),
    ),
  );
  return new Random('kinds').some(all, all.length);
})();

/** As many seeds in a row as there are kinds have each of them once. */
export const KIND_COUNT = KINDS.length;

export function planOf(seed: number): Plan {
  const { mode, way, kill } = KINDS[(seed - 1) % KINDS.length]!;
  const random = new Random('truth', seed);
  const count = random.pick([1, 1, 2, 3]);
  const guests = Array.from({ length: count }, (_, i) => guestOf(random, i, MOST_BYTES / count));
  const wireBytes = guests.reduce((sum, { memoryBytes, content }) => sum + memoryBytes * WIRE_SHARE[content], 0);
  // The source takes a second or two, the destination up to four times as long.
  const bytesPerS = Math.round(wireBytes / (0.8 + 1.4 * random.next()));
  const isLimited = random.next() > 0.1;
  const pressure = random.pick([null, 1, 2, 3, 4]);
  // A node that says nothing has what it has: with one copy that would have to be waited for.
  const replicas = kill === 'node-stopped' ? 2 : 1 + random.below(2);
  const nodes = way === 'direct' ? 0 : 2 + random.below(2) + (kill.startsWith('node-') ? 1 : 0);
  return {
    seed,
    mode,
    way,
    replicas: way === 'direct' ? 1 : replicas,
    nodes,
    guests,
    sourceRate: isLimited ? bytesPerS : null,
    destinationRate: pressure && Math.round(bytesPerS / pressure),
    maxDowntimeMs: ['auto', 'pre-copy'].includes(mode) ? random.pick([null, 30, 100, 1000]) : null,
    rounds: ['auto', 'pre-copy', 'hybrid'].includes(mode) ? random.pick([null, null, 2, 5]) : null,
    warmUpMs: random.below(400),
    blow: {
      kill,
      phase: random.pick((KILLS[kill] as KillKind)[way]!),
      share: random.next(),
      victim: random.below(count),
      node: random.below(nodes),
      how: random.next(),
      lastsMs: random.below(4_000),
    },
  };
}

function guestOf(random: Random, index: number, mostBytes: number): GuestPlan {
  // As often between 4 and 8 MiB as between 32 and 64.
  const memoryBytes = Math.floor((4 * MIB * (mostBytes / (4 * MIB)) ** random.next()) / MIB) * MIB;
  const content = random.pick(['random', 'random', 'zero', 'mixed', 'mixed'] as const);
  return {
    name: `vm${index + 1}`,
    seed: 1 + random.below(2 ** 31),
    memoryBytes,
    workingSetBytes: Math.max(MIB, Math.round((memoryBytes / MIB) * random.pick([0.1, 0.3, 0.6, 1])) * MIB),
    pattern: random.pick(['uniform', 'zipf', 'streaming'] as const),
    opsPerS: random.pick([0, 100, 400, 1000, 2500]),
    writes: random.pick([0, 0.1, 0.5, 1]),
    vcpus: 1 + random.below(8),
    content,
    common: content === 'random' ? random.pick([0, 0, 0.6]) : 0,
  };
}
