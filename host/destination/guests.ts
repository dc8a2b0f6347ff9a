// The guests of a migration at its destination (arrival.ts has one of them): which VMs are any, what the source says of each, and how they get their
// execution states where it cannot say anything any more.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { GuestSink } from '../image/image.js';
import type { Report } from '../ownership/giving.js';
import type { Status } from '../summary.js';
import { Arrival } from './arrival.js';
import { stateVm } from './execution-state.js';
import type { Notes } from './notes.js';
import type { Session } from './session.js';

/** How often a node is asked again that did not answer. */
const RETRY_MS = 500;

export interface GuestsOptions {
  readonly session: Session;
  readonly notes: Notes;
  /** Makes sure that nobody else may run them; false: that is not sure, and none is run. */
  permit(): Promise<boolean>;
  /** A VM's execution state, as the nodes have it; null if none that answers has it. @throws {AbdmError} */
  readState(vm: number): Promise<Uint8Array | null>;
  /** So long nodes are waited for that do not answer. */
  readonly answerMs: number;
  onRunning(vm: number): void;
  onFailed(vm: number, error: AbdmError): void;
}

export class Guests {
  readonly #options: GuestsOptions;
  /** By VM; null: it is no guest. */
  readonly #arrivals: readonly (Arrival | null)[];
  /** Those whose execution state comes from the nodes. */
  readonly #takenOver = new Set<Arrival>();

  constructor(options: GuestsOptions) {
    const { session, notes, permit, onRunning, onFailed } = options;
    this.#options = options;
    const { vms, mode } = notes.state!;
    this.#arrivals = vms.map((_, vm) => {
      const sink = session.guest(vm);
      if (!sink) return null;
      const { guest, fate } = notes.state!.notes[vm]!;
      const arrival = new Arrival({
        sink,
        isLost: fate === 'running' && guest !== sink.guestId,
        waitsForAll: mode === 'stop',
        permit,
        onStart: () => this.#start(vm, sink),
        onBegin: () => notes.changeVm(vm, { fate: 'running' }),
        onNotBegun: () => {
          if (notes.state!.notes[vm]!.fate === 'running') notes.changeVm(vm, { fate: 'open' });
        },
        onRunning: () => onRunning(vm),
        onFailed: (error) => onFailed(vm, error),
      });
      if (arrival.hasRun) this.#start(vm, sink);
      return arrival;
    });
  }

  /** The guest that a VM becomes; null: none. */
  of(vm: number): Arrival | null {
    return this.#arrivals[vm] ?? null;
  }

  /** How each of them stands, for the source. One that could not be opened is waited for like others, until VM_OVER says why. */
  get reports(): (Report | null)[] {
    const { session, notes } = this.#options;
    return this.#arrivals.map((arrival, vm) => {
      if (arrival) return arrival.report;
      return session.unopened.has(vm) && notes.state!.vms[vm]!.guest ? { state: 'waiting', guest: '' } : null;
    });
  }

  /** How they do; null if there are none. */
  get status(): NonNullable<Status['guests']> | null {
    const { session } = this.#options;
    if (this.#arrivals.every((arrival) => arrival === null)) return null;
    return {
      running: this.#arrivals.filter((arrival) => arrival?.hasRun).length,
      postcopyRequests: this.#arrivals.reduce((sum, _, vm) => sum + session.postcopyRequests(vm), 0),
      latelyP99Ms: session.latelyP99Ms,
    };
  }

  /** A STATE body: see Arrival.take. @throws {AbdmError} PROTOCOL. */
  take(body: Uint8Array): Promise<{ vm: number; guest: string } | null> | null {
    const vm = stateVm(body);
    // The source has not heard yet that it is over.
    if (this.#options.session.unopened.has(vm)) return null;
    const arrival = this.#need(vm, 'STATE');
    const taken = arrival.take(body);
    return taken?.then((isLoaded) => (isLoaded ? { vm, guest: arrival.sink.guestId } : null)) ?? null;
  }

  /**
   * RUN: see Arrival.run. It is the last word about a VM that stands still at its source: what has to be known of its pages was said before; all of it again if the
   * guest runs already, which we have not begun.
   * @throws {AbdmError} PROTOCOL.
   */
  run(vm: number): Promise<void> {
    const arrival = this.#need(vm, 'RUN');
    if (arrival.hasRun) this.#options.session.sure(vm);
    // Nothing more is sent of a VM that may run; and one that waits for all of its pages may have them before the source says how many frames there are.
    if (this.#options.session.merger.nextUnmerged(vm) < 0) arrival.whole();
    return arrival.run();
  }

  /** @throws {AbdmError} PROTOCOL if the VM is none, or no guest. */
  #need(vm: number, what: string): Arrival {
    const arrival = this.#arrivals[vm];
    if (arrival) return arrival;
    throw new AbdmError('PROTOCOL', `${what}: VM ${vm} is no guest`);
  }

  /** The source is not there any more, and all is at the nodes: what it did not give away itself is begun with what they have. */
  takeOver(isWanted: (vm: number) => boolean): void {
    for (const [vm, arrival] of this.#arrivals.entries()) {
      if (!arrival || arrival.isOurs || this.#takenOver.has(arrival) || !isWanted(vm)) continue;
      this.#takenOver.add(arrival);
      this.#fetch(vm, arrival).catch((error) => arrival.fail(asAbdmError(error)));
    }
  }

  /** Resolves when each that is `wanted` runs, or never will. */
  async allRun(isWanted: (vm: number) => boolean): Promise<void> {
    for (const [vm, arrival] of this.#arrivals.entries()) if (isWanted(vm)) await arrival?.settled;
  }

  /** Nothing more is done with any of them. Resolves when what was being done is over. */
  async close(): Promise<void> {
    await Promise.all(this.#arrivals.map((arrival) => arrival?.close()));
  }

  async #fetch(vm: number, arrival: Arrival): Promise<void> {
    const { session, readState, answerMs } = this.#options;
    for (const since = performance.now(); ; await sleep(RETRY_MS)) {
      const why = new AbdmError('PEER_UNREACHABLE', 'no node that answers has its execution state');
      const state = await readState(vm).catch((error) => {
        if (asAbdmError(error).code === 'PROTOCOL' || performance.now() - since > answerMs) throw error;
        return null;
      });
      if (state) {
        // One that takes it once is as if it ran from then on.
        if (arrival.sink.loadsOnce) await session.allTold();
        if (!(await arrival.load(state))) return;
        await session.allTold();
        void arrival.grant();
        return;
      }
      if (performance.now() - since > answerMs) throw why;
    }
  }

  #start(vm: number, sink: GuestSink): void {
    const { session } = this.#options;
    session.start(vm);
    sink.onFault = (pfn) => session.fault(vm, pfn);
  }
}

/** Whether what comes and what it becomes are both guests, or both none. @throws {AbdmError} USAGE. */
export function checkKinds(vms: readonly { name: string; guest?: true }[], session: Session): void {
  for (const [vm, { name, guest = false }] of vms.entries()) {
    const isGuest = session.guest(vm) !== null;
    if (isGuest === guest || session.unopened.has(vm)) continue;
    const [it, here] = guest
      ? ['a guest that is to run', 'a place for its memory only: name a guest that waits, as in NAME=guest:SOCKET']
      : ['no guest', 'one: name a file, as in NAME=file:PATH'];
    throw new AbdmError('USAGE', `${name} is ${it} at the source, and the destination has ${here}`);
  }
}
