// A client of an intermediate, for tests: it sends, and collects the answers in order.
import type { AbdmError } from '#abdm/bindings/errors.js';
import type { BodyTarget, Channel, ChannelHandler } from '#abdm/host/wire/channel.js';
import { connect } from '#abdm/host/wire/connect.js';
import { decodeJson, encodeJson, type JsonObject } from '#abdm/host/wire/json.js';
import { decodeU64s, type MessageHeader, MessageType, messageName } from '#abdm/host/wire/messages.js';
import { until } from '../wire/pair.js';

export interface Answer {
  name: string;
  id: number;
  body: Uint8Array;
}

export const MIGRATION = 'a'.repeat(32);

export class Client implements ChannelHandler {
  channel!: Channel;
  readonly answers: Answer[] = [];
  /** While false, answers are left in the socket. */
  reading = true;
  keepBodies = true;
  error: AbdmError | null | undefined;

  static async open(address: string, migration: string | null = MIGRATION, role = 'source'): Promise<Client> {
    const client = new Client();
    client.channel = await connect(address, client, { lingerMs: 200 });
    if (migration === null) return client;
    client.channel.send(MessageType.HELLO, 0, encodeJson({ protocol: 3, role, migration }));
    await client.next('WELCOME');
    return client;
  }

  bodyTarget(): BodyTarget {
    return this.reading ? null : 'wait';
  }

  onMessage(header: MessageHeader, body: Uint8Array): void {
    const kept = this.keepBodies ? body.slice() : new Uint8Array(0);
    this.answers.push({ name: messageName(header.type), id: header.id, body: kept });
  }

  onClose(error: AbdmError | null): void {
    this.error = error;
  }

  /** The next answer, which must be of this name; or whichever, if none is given. */
  async next(name?: string): Promise<Answer> {
    await until(() => this.answers.length > 0 || this.error !== undefined);
    const answer = this.answers.shift();
    if (answer === undefined) throw this.error ?? new Error('closed');
    if (name !== undefined && answer.name !== name) throw new Error(`${answer.name} ${json(answer)}, not ${name}`);
    return answer;
  }

  /** Puts a frame; the free bytes that STORED told, or the body of REFUSED. */
  async put(id: number, body: Uint8Array): Promise<number | JsonObject> {
    this.channel.send(MessageType.PUT, id, body);
    const answer = await this.next();
    if (answer.id !== id) throw new Error(`about ${answer.id}, not ${id}`);
    return answer.name === 'STORED' ? decodeU64s(answer.body, 'STORED')[0]! : decodeJson(answer.body, answer.name);
  }

  /** Gets a frame; null if it is missing. */
  async get(id: number): Promise<Uint8Array | null> {
    this.channel.send(MessageType.GET, id);
    const answer = await this.next();
    if (answer.id !== id) throw new Error(`about ${answer.id}, not ${id}`);
    return answer.name === 'FRAME' ? answer.body : null;
  }

  async drop(): Promise<JsonObject> {
    this.channel.send(MessageType.DROP, 0);
    return decodeJson((await this.next('DROPPED')).body, 'DROPPED');
  }

  async end(): Promise<void> {
    this.channel.end();
    await this.closed();
  }

  async closed(): Promise<AbdmError | null> {
    await until(() => this.error !== undefined);
    return this.error!;
  }
}

const json = (answer: Answer) => new TextDecoder().decode(answer.body);
