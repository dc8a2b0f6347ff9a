// Makes a migration known at the nodes, so that it can be found and claimed without its source: every node gets a registration, and the voters, who
// decide who may have it, the manifest too.
//
//   begin      REGISTER at every node that is there, the manifest to the best five; whoever joins later is told when it comes
//   complete   REGISTER { complete: true, frames } at every node; from then on the migration needs its source no more

import { AbdmError } from '../../bindings/errors.js';
import { MAX_VOTERS, type Registration } from './bodies.js';
import { encodeManifest, MANIFEST_ID, type Manifest } from './catalog.js';
import type { NodeRef } from './keeper.js';
import { peerCode } from './keeper.js';
import type { Mam } from './mam.js';
import type { Member } from './member.js';
import { Sealer } from './seal.js';

export interface RegistrarOptions {
  readonly mam: Mam;
  /** 32 hex digits. */
  readonly migration: string;
  /** The migration's secret. */
  readonly key: Uint8Array;
  readonly manifest: Manifest;
  readonly parked: boolean;
  readonly leaseMs: number;
  readonly token: string | null;
  /** A node refuses the migration: there is another one of that name. */
  readonly onError: (error: AbdmError) => void;
}

export class Registrar {
  readonly #options: RegistrarOptions;
  readonly #parts: readonly Uint8Array[];
  #voters: readonly Member[] = [];
  /** Who is to have the manifest: the voters, and as many more as there are to be copies. */
  #keepers: ReadonlySet<Member> = new Set();
  readonly #haveManifest = new Set<Member>();
  /** Who has no room for it. */
  readonly #unfit = new Set<Member>();
  /** VMs of the manifest that have stayed where they were. */
  readonly #over = new Set<number>();
  #begun = false;

  private constructor(options: RegistrarOptions, parts: readonly Uint8Array[]) {
    this.#options = options;
    this.#parts = parts;
  }

  /** @throws {AbdmError} IMAGE if the images have too many regions for a manifest. */
  static async create(options: RegistrarOptions): Promise<Registrar> {
    const sealer = await Sealer.create(options.key, 1);
    const parts = encodeManifest(options.manifest).map((body, i) => {
      const block = sealer.seal(MANIFEST_ID + i, body);
      const bytes = block.bytes.slice();
      block.release();
      return bytes;
    });
    return new Registrar(options, parts);
  }

  /** Tells all nodes that are there. Resolves when each has heard it, or is gone. */
  async begin(): Promise<void> {
    this.#begun = true;
    this.#chooseVoters();
    await this.#tellAll(null);
  }

  /** A node that has joined. */
  join(member: Member): void {
    if (this.#begun) void this.#tell(member, null).catch(this.#options.onError);
  }

  /** This VM does not leave with the others. */
  leaveOut(vm: number): void {
    this.#over.add(vm);
  }

  /**
   * The migration is whole: `frames` frames. Resolves when every node that is still there knows.
   * @throws {AbdmError} USAGE if a node refuses it, NO_ROOM if there is none left that could have heard it.
   */
  async complete(frames: number): Promise<void> {
    do {
      this.#chooseVoters();
      await this.#tellAll(frames);
      if (this.#voters.length === 0) {
        throw new AbdmError('NO_ROOM', `no node keeps what this migration is: ${this.#options.mam.describe()}`);
      }
      // One that was gone meanwhile, or has no room for the manifest, cannot vote: then others do.
    } while (!this.#voters.every((voter) => this.#haveManifest.has(voter) && !voter.gone));
  }

  #chooseVoters(): void {
    const { mam, migration } = this.#options;
    const key = Number.parseInt(migration.slice(0, 12), 16);
    const fit = mam.best(key).filter((member) => !this.#unfit.has(member));
    this.#voters = fit.slice(0, MAX_VOTERS);
    this.#keepers = new Set(fit.slice(0, Math.max(MAX_VOTERS, mam.replicas)));
  }

  async #tellAll(frames: number | null): Promise<void> {
    await Promise.all(this.#options.mam.members.map((member) => this.#tell(member, frames)));
  }

  /** Resolves also if the node is gone. @throws {AbdmError} USAGE if it refuses. */
  async #tell(member: Member, frames: number | null): Promise<void> {
    const { manifest, parked, leaseMs, token } = this.#options;
    const registration: Registration = {
      vms: manifest.vms.map(({ name }) => name),
      over: [...this.#over].map((vm) => manifest.vms[vm]!.name),
      replicas: manifest.replicas,
      parked,
      leaseMs,
      voters: this.#voters.map(({ address, id }): NodeRef => ({ address, id })),
      token,
      complete: frames !== null,
      frames: frames ?? 0,
    };
    try {
      if (this.#keepers.has(member)) await this.#giveManifest(member);
      await member.node.register(registration);
    } catch (error) {
      if (peerCode(error) === 'USAGE') throw new AbdmError('USAGE', (error as Error).message, { cause: error });
    }
  }

  async #giveManifest(member: Member): Promise<void> {
    if (this.#haveManifest.has(member)) return;
    for (const [i, part] of this.#parts.entries()) {
      const result = await member.node.put(MANIFEST_ID + i, part);
      if (!result.stored) return void this.#unfit.add(member);
    }
    this.#haveManifest.add(member);
  }
}
