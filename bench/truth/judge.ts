// Holds what the guests of a run saw against what is promised. It believes guests, and never what abdm says of them: abdm's word is itself held against it.
import type { History } from './history.js';
import type { KillName, Mode, Phase, Way } from './plan.js';

/** A guest process at one end. */
export interface GuestEnd {
  readonly history: History;
  /** Its process was there when the run was over. */
  readonly alive: boolean;
  /** Operations were done after all else had ended; null: none was to be expected. */
  readonly goesOn: boolean | null;
  /** What `--ask verify` found: null where it was not asked. */
  readonly verified: Verified | null;
}

export interface Verified {
  /** How many pages hold something else than they must. */
  readonly wrong: number;
  /** Pages that have not come. */
  readonly absent: readonly PageRange[];
}

/** The first and the last page of it. */
export type PageRange = readonly [number, number];

/** One VM of the run. */
export interface VmEnd {
  readonly name: string;
  readonly here: GuestEnd;
  /** At the destination: the last one is who there is, if one was killed and another took its place. */
  readonly there: readonly GuestEnd[];
  /** It stood still at the source, its operator was told that it would run nowhere else, and let it go on. */
  readonly resumed: boolean;
}

/** What `abdm eject` or `abdm merge` said of the run at its end. */
export interface RoleEnd {
  readonly name: string;
  /** By us. Then it has said nothing, or not all. */
  readonly killed: boolean;
  readonly code: number | null;
  readonly outcome: string | null;
  readonly vms: readonly { readonly name: string; readonly outcome: string }[];
  readonly lost: readonly { readonly vm: string; readonly ranges: readonly PageRange[] }[];
}

/** All that is known of a run when it is over. */
export interface Ending {
  readonly mode: Mode;
  readonly way: Way;
  readonly replicas: number;
  readonly kill: KillName;
  readonly phase: Phase;
  /** The kill came while there was something to disturb. */
  readonly came: boolean;
  /** It came so long before the source left that everything could be put right from there. */
  readonly early: boolean;
  /** Which VM it met, where it met one. */
  readonly victim: number;
  readonly vms: readonly VmEnd[];
  readonly source: RoleEnd;
  /** The last one, if it was started again; null if there was none. */
  readonly destination: RoleEnd | null;
}

/**
 * Where a VM is when all is over:
 * there  it runs at the destination, whole         lost   it is at the destination, and pages of it are named as lost
 * here   it runs at the source, as before          still  nobody runs it, and nothing is lost
 * dead   its guest was killed with it
 */
export type Place = 'there' | 'here' | 'still' | 'lost' | 'dead';

/** Clocks of two processes on one host. */
const CLOCKS_MS = 2;

/** What is broken, in words; nothing if everything is as promised. */
export function judge(ending: Ending): string[] {
  return ending.vms.flatMap((vm, i) => [
    ...wrongBytes(vm, lostOf(ending, vm.name)),
    ...owners(guestsOf(vm).map(({ history }) => history)),
    ...judgePlace(ending, vm, i),
  ]);
}

function guestsOf({ here, there }: VmEnd): readonly GuestEnd[] {
  return [here, ...there];
}

function lostOf({ destination }: Ending, vm: string): readonly PageRange[] {
  return destination?.lost.find((one) => one.vm === vm)?.ranges ?? [];
}

/** No byte is other than it was written, in pages that a guest touched and in those that it did not. */
export function wrongBytes(vm: VmEnd, lost: readonly PageRange[]): string[] {
  return guestsOf(vm).flatMap(({ history, verified }) => {
    const { name } = history;
    const found = history.wrong.map((what) => `${name}: wrong: ${what}`);
    if (!verified) return found;
    if (verified.wrong > 0) found.push(`${name}: ${verified.wrong} pages are not what they must be`);
    const unnamed = verified.absent.filter((range) => !isNamed(range, lost));
    if (unnamed.length > 0) found.push(`${name}: absent, and not named as lost: pages ${few(unnamed)}`);
    return found;
  });
}

function isNamed([first, last]: PageRange, lost: readonly PageRange[]): boolean {
  for (let pfn = first; pfn <= last; pfn++) if (!lost.some(([from, to]) => pfn >= from && pfn <= to)) return false;
  return true;
}

function few(ranges: readonly PageRange[]): string {
  const some = ranges.slice(0, 4).map(([first, last]) => `${first}-${last}`);
  return `${some.join(', ')}${ranges.length > 4 ? ', ...' : ''}`;
}

/** Never two owners: what all guests of a VM ran is one row of operations, each done once, one after the other. */
export function owners(histories: readonly History[]): string[] {
  const broken: string[] = [];
  const all = histories
    .flatMap(({ name, ran }) => ran.map((one) => ({ name, ...one })))
    .sort((a, b) => a.beganAtMs - b.beganAtMs || a.fromOperation - b.fromOperation);
  let before: (typeof all)[number] | null = null;
  for (const one of all) {
    if (before) {
      const overlapMs = before.endedAtMs - one.beganAtMs;
      const repeated = before.toOperation - one.fromOperation;
      const turn = `${before.name}, then ${one.name}`;
      if (overlapMs > CLOCKS_MS) broken.push(`two owners for ${overlapMs.toFixed(1)} ms: ${turn}`);
      if (repeated > 0) broken.push(`${repeated} operations from ${one.fromOperation} on were done twice: ${turn}`);
      else if (repeated < 0 && before.wasWhole)
        broken.push(`${-repeated} operations from ${before.toOperation} on were done by nobody: ${turn}`);
      else if (!before.wasWhole) broken.push(`it ran on although it had been killed: ${turn}`);
    }
    // Who ran longest is who the next one may overlap with.
    if (!before || one.endedAtMs > before.endedAtMs) before = one;
  }
  return broken;
}

export function placeOf({ here, there }: VmEnd, lost: readonly unknown[]): Place {
  const last = there.at(-1);
  const runs = (guest: GuestEnd | undefined) => guest?.alive === true && guest.history.state === 'running';
  if (runs(here)) return 'here';
  const ranThere = there.some(({ history }) => history.ran.length > 0);
  if (ranThere ? !last!.alive : !here.alive && here.history.killedAtMs !== null) return 'dead';
  if (lost.length > 0) return 'lost';
  return runs(last) && !last!.verified?.absent.length ? 'there' : 'still';
}

/** What a role says has become of a VM. */
function outcomeOf({ vms, outcome }: RoleEnd, vm: string): string | null {
  return vms.find(({ name }) => name === vm)?.outcome ?? outcome;
}

/** The VM is where it may be after what happened, is in truth what it is there, and abdm says the same. */
function judgePlace(ending: Ending, vm: VmEnd, index: number): string[] {
  const place = placeOf(vm, lostOf(ending, vm.name));
  const allowed = placesAfter(ending, vm, index);
  const broken: string[] = [];
  const expect = (holds: boolean, otherwise: string) => {
    if (!holds) broken.push(`${vm.name} ${place}: ${otherwise}`);
  };
  expect(allowed.includes(place), `it should be ${allowed.join(' or ')}`);
  const { source, destination } = ending;
  const words = [source, ...(destination ? [destination] : [])].filter(({ killed }) => !killed);
  const says = (role: RoleEnd) => outcomeOf(role, vm.name);
  const saying = (...outcomes: (string | null)[]) => words.filter((role) => outcomes.includes(says(role)));
  const last = vm.there.at(-1);
  if (place === 'there') {
    for (const { name } of saying('aborted')) expect(false, `${name} says that it was aborted`);
    if (!source.killed && !mayNotKnow(ending)) expect(says(source) === 'completed', `the source says ${says(source)}`);
    if (destination && !destination.killed)
      expect(says(destination) === 'completed', `the destination says ${says(destination)}`);
    expect(last!.goesOn !== false, 'its guest does nothing');
  }
  if (place === 'here') {
    for (const { name } of saying('completed')) expect(false, `${name} says that it was completed`);
    const word = vm.resumed ? 'paused-recoverable' : 'aborted';
    if (!source.killed) expect(says(source) === word, `the source says ${says(source)}`);
    expect(vm.here.goesOn !== false, 'its guest does nothing');
    // Nobody is left to empty it, and without a destination it never runs; so it is if it was let go on here by hand.
    const isForsaken = vm.resumed || !destination || destination.killed;
    const isEmpty = (state: string | null) => state === 'waiting' || (isForsaken && state === 'loaded');
    const left = vm.there.find(({ alive, history }) => alive && !isEmpty(history.state));
    expect(!left, `the guest at the destination is ${left?.history.state}, not waiting`);
  }
  if (place === 'still' && !source.killed)
    expect(saying('paused-recoverable').length > 0, `nobody says so: ${words.map(says).join(', ')}`);
  if (place === 'lost') expect(destination?.code === 4, `exit code ${destination?.code}, not 4`);
  return broken;
}

/** The source may have lost sight of the destination, and says then that it does not know. */
function mayNotKnow({ kill, came }: Ending): boolean {
  return came && ['destination-killed', 'destination-guest-killed', 'source-guest-killed', 'link-cut'].includes(kill);
}

/** Where a VM may be after this kill, by what the VM's own guests saw. */
export function placesAfter(ending: Ending, { name, there }: VmEnd, index: number): readonly Place[] {
  const { kill, phase, came, early, replicas, way, victim, source, destination } = ending;
  const ranThere = there.some(({ history }) => history.ran.length > 0);
  const isVictim = index === victim;
  if (!came) return ['there'];
  // None of a gang goes if one cannot even be opened where it is.
  const others: readonly Place[] = phase === 'setup' ? ['there', 'here'] : ['there'];
  switch (kill) {
    case 'none':
    case 'node-full':
    case 'node-stopped':
      return ['there'];
    case 'node-killed':
      return replicas > 1 || early ? ['there'] : ['there', 'lost', 'still'];
    case 'source-killed':
      if (ranThere) return ['there', 'lost'];
      // Who only the destination could have it from does not let it go on here while that may still take it.
      return destination && outcomeOf(destination, name) === 'paused-recoverable' ? ['here', 'still'] : ['here'];
    case 'destination-killed':
      if (way === 'direct') return ranThere ? ['there', 'still', 'lost'] : ['here', 'there'];
      return ranThere || source.code === 0 ? ['there'] : ['here', 'there'];
    case 'source-guest-killed':
      if (!isVictim) return others;
      return ranThere ? ['there', 'lost', 'dead'] : ['dead'];
    case 'destination-guest-killed':
      if (!isVictim) return ['there'];
      if (there[0]!.history.ran.length > 0) return ['dead'];
      // Another took its place, perhaps. What went straight to the one that died, nobody else has once the source has left.
      return way === 'nodes' && outcomeOf(source, name) === 'completed'
        ? ['there', 'still', 'lost']
        : ['here', 'there', 'still'];
    case 'link-cut':
      if (way === 'direct') return ranThere ? ['there', 'still', 'lost'] : ['here'];
      // Who is not there when the source comes for the first time is not waited for.
      return phase === 'setup' ? ['there', 'here'] : ['there'];
    case 'cancel-source':
    case 'cancel-destination':
      return ['here', 'there'];
  }
}
