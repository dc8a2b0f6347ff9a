// The destination's end of what comes from a source: the control channel, and connections on which it sends frames itself. A source that lost its
// control channel may come back, and then says everything again; nobody else is let in meanwhile.
//
//   source                                         destination
//   HELLO { role: source, migration }     ->
//                                         <-   WELCOME
//   IMAGES { key, vms, nodes, ... }       ->
//                                         <-   READY { vms }   its images are open, and this is how its guests stand
//   NODES { nodes }                       ->                   more of them, before records name them
//   RECORDS (frame 1 is at node 2, ...)   ->
//                                         <-   MERGED { mergedBytes }    now and then
//   DISCARD, STATE                        ->                   of a guest that stands still at the source
//                                         <-   LOADED { vm, guest }      it has its execution state
//   RUN { vm }                            ->                   it is ours
//                                         <-   RUNNING { vm }
//                                         <-   FAULT { vm, pfns }        pages that it waits for
//   DIVIDED { frames }                    ->
//                                         <-   DIVIDED          it knows where everything lies: the source may go
// or, from either, VM_OVER { vm }, and that VM is over; or ERROR, and the migration is.

import { randomBytes } from 'node:crypto';
import { MAX_VMS } from '../../bindings/abi.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Report } from '../ownership/giving.js';
import { type Address, formatAddress } from '../wire/address.js';
import type { Channel, ChannelHandler } from '../wire/channel.js';
import { decodeJson, encodeJson, type JsonObject, need, printable } from '../wire/json.js';
import { type Listener, listen } from '../wire/listen.js';
import { type MessageHeader, MessageType, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import { isSecured, type Security } from '../wire/security.js';
import type { Ticket } from '../wire/tickets.js';
import { type Announced, readAnnouncement, readMoreNodes } from './announcement.js';
import { type FrameLane, PlainLane } from './frames.js';

/** What the source says, as it comes; what these throw ends the migration, and the source is told. */
export interface SourceEvents {
  /** What is coming; resolves when it may come, to how each VM's guest stands, null for one that is none. Said again by a source that came back. */
  onImages(migration: string, announced: Announced): Promise<readonly (Report | null)[]>;
  /** READY was said: what the source must know besides can be told. */
  onReady(): void;
  /** More nodes, behind those that were named on this connection before. */
  onNodes(nodes: readonly NodeRef[]): void;
  onRecords(body: Uint8Array): void;
  onDiscard(body: Uint8Array): void;
  /** A part of a guest's execution state. Null if it is not the last; else resolves when the guest has it, or to null if it will not. */
  onState(body: Uint8Array): Promise<{ vm: number; guest: string } | null> | null;
  /** The guest is ours. Resolves when it runs. */
  onRun(vm: number): Promise<void>;
  /** The source sends nothing more of this VM. */
  onVmOver(vm: number, error: AbdmError): void;
  /** That was all. */
  onDivided(frames: number): void;
  /** A connection for frames of this migration, `isUrgent` for those that a guest waits for; null: there are none to be sent. */
  onFrames(isUrgent: boolean): FrameLane | null;
  /** The source is not connected any more: an orderly end says nothing of whether it meant to. */
  onLost(error: AbdmError): void;
  /** It cannot go on. */
  onError(error: AbdmError): void;
}

/** Pages that one FAULT names. */
const FAULT_PAGES = 1_024;

export class SourceControl {
  /** Which destination this is: a source that lost it knows by this whether what it had merged is still there. */
  readonly #id = randomBytes(16).toString('hex');
  readonly #events: SourceEvents;
  #listener!: Listener;
  #secured = false;
  #migration: string;
  #channel: Channel | null = null;
  /** Of control channels that are gone. */
  #pastBytesIn = 0;
  /** IMAGES was said on the present channel, and answered. */
  #said: 'nothing' | 'images' | 'ready' = 'nothing';
  #gone: Promise<void> = Promise.resolve();

  private constructor(migration: string, events: SourceEvents) {
    this.#migration = migration;
    this.#events = events;
  }

  /**
   * Begins to listen.
   * @param migration the only one that is let in; '': the first that comes, and none after it.
   * @throws {AbdmError} USAGE if that is not possible.
   */
  static async listen(
    address: Address | string,
    security: Security,
    migration: string,
    events: SourceEvents,
  ): Promise<SourceControl> {
    const control = new SourceControl(migration, events);
    control.#listener = await listen(
      address,
      (channel, ticket) => (ticket ? (ticket.context as PlainLane).take(channel) : control.#newcomer()),
      { security },
    );
    control.#secured = isSecured(security);
    return control;
  }

  /** HOST:PORT where it listens. */
  get address(): string {
    return formatAddress(this.#listener.address);
  }

  /** A source is there. */
  get connected(): boolean {
    return this.#channel !== null;
  }

  /** A source is there, and was told READY. */
  get isReady(): boolean {
    return this.#channel !== null && this.#said === 'ready';
  }

  /** Bytes received from sources on control channels. */
  get bytesIn(): number {
    return this.#pastBytesIn + (this.#channel?.bytesIn ?? 0);
  }

  /** Says how far the merge is. */
  report(mergedBytes: number): void {
    if (this.#said === 'ready') this.#channel?.send(MessageType.MERGED, 0, encodeJson({ mergedBytes }));
  }

  /** Asks for pages that a guest waits for; false: nobody is there to be asked. */
  fault(vm: number, pfns: readonly number[]): boolean {
    if (!this.isReady) return false;
    for (let at = 0; at < pfns.length; at += FAULT_PAGES) {
      this.#channel!.send(MessageType.FAULT, 0, encodeJson({ vm, pfns: pfns.slice(at, at + FAULT_PAGES) }));
    }
    return true;
  }

  /** Says that this VM has never run here, and never will. */
  vmOver(vm: number, { code, message }: AbdmError): void {
    if (this.isReady)
      this.#channel!.send(MessageType.VM_OVER, 0, encodeJson({ vm, code, message: printable(message) }));
  }

  /** Ends the conversation: with null because all is well, else the source is told why; resolves when it has heard. */
  async end(error: AbdmError | null): Promise<void> {
    if (!error) return this.#channel?.end();
    this.#channel?.fail(error);
    await this.#gone;
  }

  /** The source is left as it is: to it the connections end, and it may come back to whoever listens here next. That is not us: it would hear that it is over. */
  leave(): Promise<void> {
    return this.#listener.close(null);
  }

  /** Stops listening. */
  close(): Promise<void> {
    return this.#listener.close();
  }

  /** A new connection: its first message says what it is for. */
  #newcomer(): ChannelHandler {
    return {
      onMessage: (header, body, channel) => {
        if (header.type !== MessageType.HELLO) {
          throw new AbdmError('PROTOCOL', `${messageName(header.type)} came first, where HELLO must`);
        }
        const hello = decodeJson(body, 'HELLO');
        need.integer(hello, 'protocol', 'HELLO', PROTOCOL_VERSION, PROTOCOL_VERSION);
        const migration = need.string(hello, 'migration', 'HELLO', 32);
        if (!/^[0-9a-f]{32}$/.test(migration)) {
          throw new AbdmError('PROTOCOL', 'HELLO: `migration` is not 32 hex digits');
        }
        let ticket: Ticket | undefined;
        const role = need.oneOf(hello, 'role', 'HELLO', ['source', 'frames', 'urgent']);
        if (role === 'source') this.#letIn(migration, channel);
        else {
          const lane = migration === this.#migration ? this.#events.onFrames(role === 'urgent') : null;
          if (!lane) throw new AbdmError('PROTOCOL', 'frames of this migration are not expected here');
          if (this.#secured) ticket = this.#listener.tickets.issue(new PlainLane(lane, channel));
          else channel.handler = lane;
        }
        const room = { freeBytes: Number.MAX_SAFE_INTEGER, memoryBytes: Number.MAX_SAFE_INTEGER };
        const welcome = { protocol: PROTOCOL_VERSION, role: 'destination', id: this.#id, ...room, ticket };
        channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
      },
    };
  }

  #letIn(migration: string, channel: Channel): void {
    if (this.#migration !== '' && this.#migration !== migration) {
      throw new AbdmError('PROTOCOL', 'another migration is under way here');
    }
    this.#migration = migration;
    const past = this.#channel;
    this.#channel = channel;
    this.#said = 'nothing';
    // Its end may not have been noticed here yet.
    past?.destroy(new AbdmError('PEER_GONE', 'the source has come back on another connection'));
    let markGone: () => void;
    this.#gone = new Promise((resolve) => {
      markGone = resolve;
    });
    channel.handler = {
      onMessage: (header, body) => {
        try {
          this.#onMessage(header, body, channel);
        } catch (error) {
          this.#events.onError(asAbdmError(error));
        }
      },
      onClose: (error) => {
        markGone();
        this.#pastBytesIn += channel.bytesIn;
        if (this.#channel !== channel) return;
        this.#channel = null;
        this.#events.onLost(
          error ?? new AbdmError('PEER_GONE', 'the source ended the connection before all was divided'),
        );
      },
    };
  }

  #onMessage(header: MessageHeader, body: Uint8Array, channel: Channel): void {
    const { type } = header;
    if (type === MessageType.IMAGES && this.#said === 'nothing') {
      this.#said = 'images';
      void this.#prepare(readAnnouncement(body), channel);
    } else if (this.#said !== 'ready') {
      throw new AbdmError('PROTOCOL', `the source sent ${messageName(type)}, which is not its turn`);
    } else if (type === MessageType.NODES) this.#events.onNodes(readMoreNodes(body));
    else if (type === MessageType.RECORDS) this.#events.onRecords(body);
    else if (type === MessageType.DISCARD) this.#events.onDiscard(body);
    else if (type === MessageType.STATE) {
      const taken = this.#events.onState(body);
      if (taken) void taken.then((loaded) => loaded && this.#answer(channel, MessageType.LOADED, loaded));
    } else if (type === MessageType.RUN) {
      const vm = readVm(decodeJson(body, 'RUN'), 'RUN');
      void this.#events.onRun(vm).then(() => this.#answer(channel, MessageType.RUNNING, { vm }));
    } else if (type === MessageType.VM_OVER) {
      const from = decodeJson(body, 'VM_OVER');
      const code = printable(need.string(from, 'code', 'VM_OVER', 64));
      const text = printable(need.string(from, 'message', 'VM_OVER', 64 * 1024));
      const error = new AbdmError('PEER_ABORTED', `the source sends no more of it: ${text} (${code})`, {
        cause: { code },
      });
      this.#events.onVmOver(readVm(from, 'VM_OVER'), error);
    } else if (type === MessageType.DIVIDED) {
      this.#events.onDivided(need.integer(decodeJson(body, 'DIVIDED'), 'frames', 'DIVIDED'));
      channel.send(MessageType.DIVIDED, 0, encodeJson({}));
    } else throw new AbdmError('PROTOCOL', `the source sent ${messageName(type)}, which is not its turn`);
  }

  async #prepare(announced: Announced, channel: Channel): Promise<void> {
    let vms: readonly (Report | null)[];
    try {
      vms = await this.#events.onImages(this.#migration, announced);
    } catch (error) {
      return this.#events.onError(asAbdmError(error));
    }
    if (this.#channel !== channel) return;
    this.#said = 'ready';
    channel.send(MessageType.READY, 0, encodeJson({ vms }));
    this.#events.onReady();
  }

  /** What was asked on a connection is answered there, or not at all: on a later one the source asks again. */
  #answer(channel: Channel, type: MessageType, body: object): void {
    if (this.#channel === channel) channel.send(type, 0, encodeJson(body));
  }
}

function readVm(from: JsonObject, what: string): number {
  return need.integer(from, 'vm', what, 0, MAX_VMS - 1);
}
