// Goes through every world that can be reached, breadth first, and says what is wrong with the first bad one and how it came about.

import { type Budget, begin, clone, EVENTS, type Machines, running, type World, wrongIn } from './world.js';

export interface Checked {
  worlds: number;
  /** Worlds in which nothing can happen any more. */
  ends: number;
  /** What is wrong, and what has happened until then; null: nothing. */
  wrong: { what: string; events: string[] } | null;
}

interface Reached {
  world: World;
  from: Reached | null;
  event: string;
  /** Worlds that can follow. */
  next: Reached[];
}

/** @param mustEnd every interleaving must end, and with exactly one guest that runs. */
export function check(machines: Machines, budget: Budget, mustEnd: boolean): Checked {
  // Most of what is tried the machines refuse: that is cheap without a trace of calls.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return explore(machines, budget, mustEnd);
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function explore(machines: Machines, budget: Budget, mustEnd: boolean): Checked {
  const first: Reached = { world: begin(machines, budget), from: null, event: '', next: [] };
  const known = new Map<string, Reached>([[JSON.stringify(first.world), first]]);
  const queue = [first];
  let ends = 0;
  const found = (what: string, at: Reached) => ({ worlds: known.size, ends, wrong: { what, events: eventsTo(at) } });
  for (const reached of queue) {
    const what = wrongIn(reached.world);
    if (what !== null) return found(what, reached);
    let spare: World | null = null;
    for (const event of EVENTS) {
      const world: World = spare ?? clone(reached.world, machines);
      spare = world;
      try {
        if (!event.happen(world, machines)) continue;
      } catch (error) {
        if (/^a VM that is \w+ (here )?cannot become \w+$/.test((error as Error).message)) continue;
        throw error;
      }
      spare = null;
      const key = JSON.stringify(world);
      let next = known.get(key);
      if (!next) {
        next = { world, from: reached, event: event.name, next: [] };
        known.set(key, next);
        queue.push(next);
      }
      if (mustEnd) reached.next.push(next);
      else if (next.from === reached) reached.next = NEXT;
    }
    if (reached.next.length > 0) continue;
    ends++;
    if (mustEnd && running(reached.world) !== 1)
      return found(`it ends, and ${running(reached.world)} guests run`, reached);
  }
  const endless = mustEnd ? findEndless(queue) : undefined;
  return endless ? found('it can go on for ever', endless) : { worlds: known.size, ends, wrong: null };
}

/** Some world can follow: which ones matters only where it must end. */
const NEXT: Reached[] = [null as never];

/** A world that can follow itself, if there is one: what is left when worlds that nothing leads to are taken away, again and again. */
function findEndless(all: readonly Reached[]): Reached | undefined {
  const ways = new Map<Reached, number>();
  for (const { next } of all) for (const to of next) ways.set(to, (ways.get(to) ?? 0) + 1);
  const free = all.filter((reached) => !ways.has(reached));
  for (const reached of free) {
    for (const to of reached.next) {
      const count = ways.get(to)! - 1;
      ways.set(to, count);
      if (count === 0) free.push(to);
    }
  }
  return all.find((reached) => (ways.get(reached) ?? 0) > 0);
}

function eventsTo(reached: Reached): string[] {
  const events: string[] = [];
  for (let at = reached; at.from !== null; at = at.from) events.unshift(at.event);
  return events;
}
