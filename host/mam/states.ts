// The execution states of VMs at the nodes, for a destination that takes over from there: in sealed blocks, each put to R nodes along a chain as a frame is,
// so that the copies cost the source's link one. (The manifest goes to all voters, but it is small, and not what a stopped guest waits for.)
//
//   put -> | parts that wait for memory | --> seal -> courier -> kept
//                  ^                                               |
//                  +--- all nodes that had it are gone ------------+

import { AbdmError } from '../../bindings/errors.js';
import { MAX_STATE_BYTES, partOf, partsOf, stateIds } from './catalog.js';
import type { Chain, Courier } from './courier.js';
import type { Sealer } from './seal.js';

interface Part {
  readonly id: number;
  readonly state: Uint8Array;
  readonly index: number;
  generation: number;
  /** Null while nobody has it. */
  chain: Chain | null;
}

export class States {
  readonly #sealer: Sealer;
  readonly #courier: Courier;
  readonly #onChange: () => void;
  readonly #vms = new Map<number, readonly Part[]>();
  /** Parts that nobody has and that are not on their way. */
  readonly #queue: Part[] = [];
  /** Parts that nobody has. */
  #missing = 0;

  /** `onChange` is called when a part is kept. */
  constructor(sealer: Sealer, courier: Courier, onChange: () => void) {
    this.#sealer = sealer;
    this.#courier = courier;
    this.#onChange = onChange;
  }

  /** Everything that was put is kept. */
  get idle(): boolean {
    return this.#missing === 0;
  }

  /**
   * The execution state of a VM, once in a migration: what a node has under an id stays. It must not change any more.
   * @throws {AbdmError} IMAGE if it is empty or too long.
   */
  put(vm: number, state: Uint8Array): void {
    if (this.#vms.has(vm)) throw new AbdmError('INTERNAL', `the execution state of VM ${vm} is at the nodes already`);
    if (state.byteLength < 1 || state.byteLength > MAX_STATE_BYTES) {
      const text = `an execution state of ${state.byteLength} bytes: there must be some, and ${MAX_STATE_BYTES} at most`;
      throw new AbdmError('IMAGE', text);
    }
    const [first] = stateIds(vm);
    const parts = Array.from({ length: partsOf(state) }, (_, index): Part => {
      return { id: first + index, state, index, generation: 0, chain: null };
    });
    this.#vms.set(vm, parts);
    this.#missing += parts.length;
    this.#queue.push(...parts);
    this.#send();
  }

  /** Whether all of it is kept. */
  has(vm: number): boolean {
    return this.#vms.get(vm)?.every(({ chain }) => chain) ?? false;
  }

  /** Sends the parts again that nobody has any more. */
  recover(): void {
    for (const part of [...this.#vms.values()].flat()) {
      if (!part.chain?.every(({ gone }) => gone)) continue;
      part.chain = null;
      part.generation++;
      this.#missing++;
      this.#queue.push(part);
    }
    this.#send();
  }

  #send(): void {
    while (this.#queue.length > 0 && this.#sealer.freeSlots > 0) {
      const part = this.#queue.shift()!;
      const { id, state, index, generation } = part;
      const sealed = this.#sealer.seal(id, partOf(state, index), generation);
      const release = () => {
        sealed.release();
        this.#send();
      };
      void this.#courier.send({ ...sealed, release }, id).then((chain) => {
        part.chain = chain;
        this.#missing--;
        // They may be gone again by now.
        this.recover();
        this.#onChange();
      });
    }
  }
}
