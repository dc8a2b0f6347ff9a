// A source with its guest, a destination with its guest, the link between them, and the nodes: as much of them as decides who runs a VM. Everything that can
// happen is an event, and every event is one step; what the two ends do is what the machines under test allow.
//
//   source      its guest runs or stands still; every stop makes another execution state, numbered
//   destination a process that may die and be started again; it gives its guest what came, one thing after the other
//   its guest   lives on when the process dies, and knows whether it has run; another one may take its place
//   link        two queues. An end may notice a break late: until then it takes what was on its way, and what it sends is lost
//   nodes       have the execution state, for whoever comes, from when the source has said that everything is there
//   note        which guest is to run, written before it does, for whoever comes later; taken back if it is gone, and has surely not run

import type { Giving } from '#abdm/host/ownership/giving.js';
import type { Taking } from '#abdm/host/ownership/taking.js';

/** The machines under test. */
export interface Machines {
  Giving: new () => Giving;
  Taking: new (hasRun: boolean, isLost?: boolean) => Taking;
}

export type Message =
  | { type: 'STATE'; version: number }
  | { type: 'RUN' }
  | { type: 'READY'; state: 'waiting' | 'loaded' | 'running'; guest: string }
  | { type: 'LOADED'; guest: string }
  | { type: 'RUNNING' }
  | { type: 'VM_OVER' };

/** How often what may happen any number of times, or goes wrong, may happen. */
export interface Budget {
  stops: number;
  breaks: number;
  refusals: number;
  destinationDeaths: number;
  guestDeaths: number;
  sourceDeaths: number;
  /** 0: there are none. */
  nodes: number;
}

export interface World {
  left: Budget;
  giving: Giving;
  source: {
    alive: boolean;
    runs: boolean;
    /** READY has come on this link. */
    link: 'down' | 'up' | 'ready';
    /** Of its guest's last execution state. */
    version: number;
    /** VM_OVER has come on this link. */
    refused: boolean;
    /** The nodes are about to be told that they have everything. */
    registers: boolean;
  };
  taking: Taking;
  destination: {
    alive: boolean;
    link: boolean;
    /** Execution states that the guest is still to be given. */
    loads: { version: number; from: 'link' | 'past link' | 'nodes' }[];
    /** RUN has come, or the nodes have everything. */
    granted: boolean;
    /** The guest is told to run. */
    begins: boolean;
    tookOver: boolean;
  };
  guest: { id: number; alive: boolean; version: number; hasRun: boolean };
  note: number | null;
  /** The version that they have. */
  nodes: number | null;
  toDestination: Message[];
  toSource: Message[];
  /** The guest that has ever run at the destination. Nobody in the world knows this. */
  ran: number | null;
  /** What must never happen, and has. */
  broken: string | null;
}

export function begin({ Giving, Taking }: Machines, left: Budget): World {
  return {
    left,
    giving: new Giving(),
    source: { alive: true, runs: true, link: 'down', version: 0, refused: false, registers: false },
    taking: new Taking(false),
    destination: { alive: true, link: false, loads: [], granted: false, begins: false, tookOver: false },
    guest: { id: 1, alive: true, version: 0, hasRun: false },
    note: null,
    nodes: null,
    toDestination: [],
    toSource: [],
    ran: null,
    broken: null,
  };
}

/** Machines are what their public fields say: they must have no others. */
export function clone(world: World, { Giving, Taking }: Machines): World {
  return {
    ...world,
    left: { ...world.left },
    giving: Object.assign(new Giving(), world.giving),
    source: { ...world.source },
    taking: Object.assign(new Taking(false), world.taking),
    destination: { ...world.destination, loads: world.destination.loads.map((load) => ({ ...load })) },
    guest: { ...world.guest },
    toDestination: [...world.toDestination],
    toSource: [...world.toSource],
  };
}

export interface Event {
  name: string;
  /** Does it, and returns true; or returns false, where it cannot happen. What the machines refuse, by throwing, cannot happen either. Nothing has changed then. */
  happen(world: World, machines: Machines): boolean;
}

function toDestination(world: World, message: Message): void {
  if (world.destination.alive && world.destination.link) world.toDestination.push(message);
}

function toSource(world: World, message: Message): void {
  if (world.source.alive && world.source.link !== 'down') world.toSource.push(message);
}

/** The source's end is gone. */
function sourceUnlinked({ source, giving, toSource }: World): void {
  source.link = 'down';
  source.refused = false;
  toSource.length = 0;
  giving.linkLost();
}

/** The destination's end is gone. */
function destinationUnlinked({ destination, toDestination }: World): void {
  destination.link = false;
  toDestination.length = 0;
  for (const load of destination.loads) if (load.from === 'link') load.from = 'past link';
}

/** Nobody but a destination that has never run it refuses it. */
function refuse(world: World): void {
  world.taking.refuse();
  toSource(world, { type: 'VM_OVER' });
}

const sourceEvents: Event[] = [
  {
    name: 'the source stops its guest',
    happen({ source, giving, left }) {
      if (!source.alive || left.stops === 0) return false;
      giving.stopped();
      left.stops--;
      source.runs = false;
      source.version++;
      return true;
    },
  },
  {
    name: 'the source resumes its guest',
    happen({ source, giving }) {
      if (!source.alive) return false;
      giving.resumed();
      source.runs = true;
      return true;
    },
  },
  {
    name: 'the source offers it',
    happen(world) {
      const { source, giving } = world;
      if (!source.alive || source.link !== 'ready' || source.refused) return false;
      giving.offered();
      toDestination(world, { type: 'STATE', version: source.version });
      return true;
    },
  },
  {
    name: 'the source gives it',
    happen(world) {
      if (!world.source.alive) return false;
      world.giving.give();
      toDestination(world, { type: 'RUN' });
      return true;
    },
  },
  {
    name: 'the source gives it to the nodes',
    happen({ source, giving, left }) {
      if (!source.alive || source.registers || !left.nodes) return false;
      giving.giveToNodes();
      source.registers = true;
      return true;
    },
  },
  {
    name: 'the nodes are told that they have everything',
    happen(world) {
      const { source } = world;
      if (!source.alive || !source.registers || world.nodes !== null) return false;
      world.nodes = source.version;
      return true;
    },
  },
  {
    name: 'the source leaves',
    happen(world) {
      const { source, nodes } = world;
      if (!source.alive || nodes === null) return false;
      sourceUnlinked(world);
      source.alive = false;
      return true;
    },
  },
  {
    name: 'the source hears',
    happen(world) {
      const { source, giving } = world;
      const message = world.toSource.shift();
      if (!message) return false;
      if (message.type === 'READY') {
        source.link = 'ready';
        if (giving.reported({ state: message.state, guest: message.guest })) toDestination(world, { type: 'RUN' });
      } else if (message.type === 'LOADED') giving.loaded(message.guest);
      else if (message.type === 'RUNNING') giving.ran();
      else {
        source.refused = true;
        giving.refused();
      }
      return true;
    },
  },
  {
    name: 'the source notices that the link is broken',
    happen(world) {
      const { source, destination, left } = world;
      if (!source.alive || source.link === 'down') return false;
      // It is for the first end that notices it.
      const breaks = destination.alive && destination.link ? 1 : 0;
      if (left.breaks < breaks) return false;
      left.breaks -= breaks;
      sourceUnlinked(world);
      return true;
    },
  },
  {
    name: 'the source dies',
    happen(world) {
      if (!world.source.alive || world.left.sourceDeaths === 0) return false;
      world.left.sourceDeaths--;
      sourceUnlinked(world);
      world.source.alive = false;
      return true;
    },
  },
];

const destinationEvents: Event[] = [
  {
    name: 'the source connects',
    happen(world) {
      const { source, destination, taking, guest } = world;
      if (!source.alive || source.link !== 'down' || !destination.alive) return false;
      // What is left on an older link is not taken any more.
      destinationUnlinked(world);
      source.link = 'up';
      destination.link = true;
      toSource(world, { type: 'READY', state: taking.report, guest: `${guest.id}` });
      if (taking.state === 'refused') toSource(world, { type: 'VM_OVER' });
      return true;
    },
  },
  {
    name: 'the destination hears',
    happen(world) {
      const { destination, taking } = world;
      const message = world.toDestination.shift();
      if (!message) return false;
      if (message.type === 'STATE') {
        const isOpen = taking.state === 'waiting' || taking.state === 'loaded';
        if (isOpen) destination.loads.push({ version: message.version, from: 'link' });
      } else if (taking.state === 'waiting')
        world.broken = 'the destination was told to run what it had not said that it has';
      else if (taking.hasRun) toSource(world, { type: 'RUNNING' });
      else destination.granted = true;
      return true;
    },
  },
  {
    name: 'the destination takes it from the nodes',
    happen({ destination, taking, nodes }) {
      const isOpen = taking.state === 'waiting' || taking.state === 'loaded';
      if (!destination.alive || nodes === null || !isOpen || destination.tookOver) return false;
      // What a source that is there has said, and what it is still to say, may be older.
      if (destination.link) return false;
      destination.tookOver = true;
      destination.loads.push({ version: nodes, from: 'nodes' });
      return true;
    },
  },
  {
    name: 'the guest there is loaded',
    happen(world) {
      const { destination, taking, guest } = world;
      const load = destination.loads.shift();
      if (!load) return false;
      if (taking.state === 'running') return true;
      taking.loaded();
      guest.version = load.version;
      if (load.from === 'link') toSource(world, { type: 'LOADED', guest: `${guest.id}` });
      if (load.from === 'nodes') destination.granted = true;
      return true;
    },
  },
  {
    name: 'the destination begins it',
    happen(world) {
      const { destination, taking, guest } = world;
      if (!destination.alive || !destination.granted) return false;
      taking.run();
      world.note = guest.id;
      destination.begins = true;
      return true;
    },
  },
  {
    name: 'the guest there runs',
    happen(world) {
      const { destination, taking, guest, source, ran } = world;
      if (!destination.begins || !guest.alive) return false;
      destination.begins = false;
      taking.ran();
      guest.hasRun = true;
      if (guest.version !== source.version) world.broken = 'it runs with an execution state that is not the last one';
      if (ran !== null) world.broken = 'it runs a second time';
      world.ran = guest.id;
      toSource(world, { type: 'RUNNING' });
      return true;
    },
  },
  {
    name: 'the destination refuses it',
    happen(world) {
      const { destination, taking, left } = world;
      if (!destination.alive || taking.state === 'refused' || left.refusals === 0) return false;
      refuse(world);
      left.refusals--;
      return true;
    },
  },
  {
    name: 'the destination notices that the link is broken',
    happen(world) {
      const { source, destination, left } = world;
      if (!destination.alive || !destination.link) return false;
      const breaks = source.alive && source.link !== 'down' ? 1 : 0;
      if (left.breaks < breaks) return false;
      left.breaks -= breaks;
      destinationUnlinked(world);
      return true;
    },
  },
  {
    name: 'the destination dies',
    happen(world) {
      const { destination, left } = world;
      if (!destination.alive || left.destinationDeaths === 0) return false;
      left.destinationDeaths--;
      destinationUnlinked(world);
      world.destination = { alive: false, link: false, loads: [], granted: false, begins: false, tookOver: false };
      return true;
    },
  },
  {
    name: 'the destination is started again',
    happen(world, { Taking }) {
      const { destination, guest, note } = world;
      if (destination.alive) return false;
      if (!guest.alive) world.guest = { id: guest.id + 1, alive: true, version: 0, hasRun: false };
      destination.alive = true;
      world.taking = new Taking(world.guest.hasRun, note !== null && note !== world.guest.id);
      return true;
    },
  },
  {
    name: 'the guest there dies',
    happen(world) {
      const { destination, taking, guest, left } = world;
      if (!guest.alive || left.guestDeaths === 0) return false;
      left.guestDeaths--;
      guest.alive = false;
      destination.loads = [];
      if (!destination.alive) return true;
      if (destination.begins) {
        destination.begins = false;
        taking.notRun();
        world.note = null;
      }
      if (taking.state !== 'running') refuse(world);
      return true;
    },
  },
];

export const EVENTS: readonly Event[] = [...sourceEvents, ...destinationEvents];

/** What is wrong with a world, or null. */
export function wrongIn({ source, giving, destination, taking, guest, ran, nodes, broken }: World): string | null {
  if (broken !== null) return broken;
  if (source.runs && guest.alive && guest.hasRun) return 'both guests run';
  if (source.runs && ran !== null) return 'the source runs it after the destination did';
  if (!source.alive || !giving.isOurs) return null;
  if (ran !== null) return 'the source may run it, and the destination has';
  if (destination.alive && destination.granted && taking.state === 'loaded') return 'both may run it';
  if (nodes !== null) return 'the source may run it, and whoever comes may take it from the nodes';
  return null;
}

/** How many guests run. */
export function running({ source, guest }: World): number {
  return Number(source.runs) + Number(guest.alive && guest.hasRun);
}
