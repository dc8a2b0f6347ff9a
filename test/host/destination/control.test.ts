// A source that says something wrong, at the wrong time, or nothing: the destination ends it, clearly, and leaves nothing behind.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readAnnouncement } from '#abdm/host/destination/announcement.js';
import { Destination } from '#abdm/host/destination/destination.js';
import { FileSink } from '#abdm/host/image/filesink.js';
import type { Summary } from '#abdm/host/summary.js';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { RecordWriter } from '#abdm/host/wire/records.js';

const { HELLO, WELCOME, IMAGES, READY, RECORDS, DIVIDED, PUT, GET } = MessageType;
const MIGRATION = 'cd'.repeat(16);
const hello = { protocol: PROTOCOL_VERSION, role: 'source', migration: MIGRATION };
const images = {
  mode: 'stop',
  direct: true,
  key: '11'.repeat(32),
  token: '22'.repeat(16),
  sealed: false,
  replicas: 1,
  vms: [{ name: 'a', bytes: 10_000, pages: 3, regions: [{ name: 'a', address: 0, bytes: 10_000 }] }],
  nodes: [],
  elapsedMs: 5,
};

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'abdm-test-'));
});
afterEach(() => {
  expect(readdirSync(dir)).toEqual([]);
  rmSync(dir, { recursive: true });
});

/** Says these things in turn, each after the answer to the one before where it has one, and gives the destination's summary. */
async function say(...messages: [MessageType, object | Uint8Array][]): Promise<Summary> {
  const destination = await Destination.start({
    listen: '127.0.0.1:0',
    returnMs: 500,
    images: [{ name: 'a', open: ({ bytes }) => new FileSink(join(dir, 'out'), bytes) }],
  });
  let answered: () => void = () => {};
  const channel = await connect(destination.address!, {
    onMessage: ({ type }) => {
      if (type === WELCOME || type === READY) answered();
    },
  });
  for (const [type, body] of messages) {
    const answer = new Promise<void>((resolve) => {
      answered = resolve;
    });
    channel.send(type, type === PUT || type === GET ? 1 : 0, body instanceof Uint8Array ? body : encodeJson(body));
    if (type === HELLO || type === IMAGES) await Promise.race([answer, destination.done]);
  }
  channel.end();
  return destination.done;
}

describe('a source', () => {
  const record = new RecordWriter();
  record.add(1, 500, 0, [0], [0, 1, 2]);
  const records = record.take();

  test.each<[string, RegExp, [MessageType, object | Uint8Array][]]>([
    ['that leaves after its hello', /ended the connection/, [[HELLO, hello]]],
    [
      'that leaves before it divided anything',
      /ended the connection/,
      [
        [HELLO, hello],
        [IMAGES, images],
      ],
    ],
    [
      'that sends records before it said of what',
      /RECORDS, which is not its turn/,
      [
        [HELLO, hello],
        [RECORDS, records],
      ],
    ],
    [
      'that is done before it began',
      /DIVIDED, which is not its turn/,
      [
        [HELLO, hello],
        [DIVIDED, { frames: 0 }],
      ],
    ],
    [
      'that announces twice',
      /IMAGES, which is not its turn/,
      [
        [HELLO, hello],
        [IMAGES, images],
        [IMAGES, images],
      ],
    ],
    [
      'that names a node that there is not',
      /node 0, there are 0/,
      [
        [HELLO, hello],
        [IMAGES, images],
        [RECORDS, records],
      ],
    ],
    [
      'that puts a frame where it talks',
      /PUT, which is not its turn/,
      [
        [HELLO, hello],
        [IMAGES, images],
        [PUT, records],
      ],
    ],
    [
      'that says it is done with nothing sent',
      /3 pages are lost .*in none.*: a 0-2/,
      [
        [HELLO, hello],
        [IMAGES, images],
        [DIVIDED, { frames: 0 }],
      ],
    ],
    [
      'that has a broken key',
      /`key`/,
      [
        [HELLO, hello],
        [IMAGES, { ...images, key: 'zz' }],
      ],
    ],
  ])('%s is refused', async (_, reason, messages) => {
    const summary = await say(...messages);
    expect(summary).toMatchObject({ outcome: 'aborted', exitTimeMs: null, totalMigrationTimeMs: null });
    expect(summary.reason!.message).toMatch(reason);
    for (const vm of summary.vms) expect(vm.verified).toBe(false);
  });

  test('that does not say hello first is left, and the destination waits on', async () => {
    const destination = await Destination.start({ listen: '127.0.0.1:0', images: [] });
    for (const body of [
      encodeJson(images),
      encodeJson({ ...hello, protocol: PROTOCOL_VERSION + 1 }),
      encodeJson({ ...hello, migration: 'x' }),
    ]) {
      const closed = new Promise((resolve) => {
        void connect(destination.address!, { onMessage: () => {}, onClose: resolve }).then((channel) => {
          channel.send(body.length > 100 ? IMAGES : HELLO, 0, body);
        });
      });
      expect(await closed).toMatchObject({ code: 'PEER_ABORTED' });
    }
    expect(destination.status().phase).toBe('waiting');
    destination.cancel();
    expect((await destination.done).reason!.code).toBe('CANCELLED');
  });
});

describe('an announcement', () => {
  const read = (change: object) => readAnnouncement(encodeJson({ ...images, ...change }));
  const vm = images.vms[0]!;

  test('is read as it was sent', () => {
    const { key, ...rest } = read({});
    const { vms, token, sealed, replicas } = images;
    expect(rest).toEqual({ mode: 'stop', direct: true, vms, token, sealed, replicas, nodes: [], elapsedMs: 5 });
    expect(key).toEqual(new Uint8Array(32).fill(0x11));
  });

  test('says of each VM whether it is a guest', () => {
    const vms = [
      { ...vm, guest: true },
      { ...vm, name: 'b', guest: false },
      { ...vm, name: 'c' },
    ];
    expect(read({ vms, mode: 'auto' }).vms.map(({ guest }) => guest)).toEqual([true, undefined, undefined]);
    for (const mode of ['auto', 'stop', 'pre-copy', 'post-copy', 'hybrid']) expect(read({ mode }).mode).toBe(mode);
  });

  test.each<[string, object]>([
    ['`guest`', { vms: [{ ...vm, guest: 1 }] }],
    ['`mode`', { mode: 'warp' }],
    ['`key`', { key: `${'11'.repeat(31)}zz` }],
    ['`vms` is empty', { vms: [] }],
    ['`vms` has 65 items', { vms: Array.from({ length: 65 }, (_, i) => ({ ...vm, name: `a${i}` })) }],
    ['same name', { vms: [vm, vm] }],
    ['do not fit', { vms: [{ ...vm, pages: 4 }] }],
    ['`pages`', { vms: [{ ...vm, pages: 1e12, bytes: 4096e12 }] }],
    ['more than', { vms: [1, 2, 3].map((i) => ({ ...vm, name: `a${i}`, pages: 2 ** 27, bytes: 2 ** 39 })) }],
    ['`bytes`', { vms: [{ ...vm, bytes: -1 }] }],
    ['`name`', { vms: [{ ...vm, name: 'x'.repeat(65) }] }],
    ['`regions`', { vms: [{ ...vm, regions: 'all' }] }],
    ['`address`', { vms: [{ ...vm, regions: [{ name: '', address: 0.5, bytes: 1 }] }] }],
    ['`nodes`', { direct: false, nodes: [7] }],
    ['`nodes`', { direct: false, nodes: ['127.0.0.1:1'] }],
    ['`id`', { direct: false, nodes: [{ address: '127.0.0.1:1', id: 'x'.repeat(32) }] }],
    ['`direct`', { direct: true, nodes: [{ address: '127.0.0.1:1', id: '00'.repeat(16) }] }],
    ['`token`', { token: 'x' }],
    ['`sealed`', { sealed: 1 }],
    ['`replicas`', { replicas: 17 }],
    ['`elapsedMs`', { elapsedMs: 'soon' }],
  ])('with a wrong field is refused: %s', (text, change) => {
    expect(() => read(change)).toThrow(
      expect.objectContaining({ code: 'PROTOCOL', message: expect.stringContaining(text) }),
    );
  });
});
