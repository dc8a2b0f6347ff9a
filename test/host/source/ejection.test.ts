// A source whose destination does not answer: it waits no longer than it was told to, and can be cancelled meanwhile.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FileSource } from '#abdm/host/image/file.js';
import { Ejection } from '#abdm/host/source/source.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, MessageType } from '#abdm/host/wire/messages.js';

const { HELLO, WELCOME, IMAGES, READY } = MessageType;

let dir = '';
let image: FileSource;
let destination: Listener;
/** What the destination does not answer any more. */
let silentAt: MessageType;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'abdm-test-'));
  writeFileSync(join(dir, 'in'), '');
  image = new FileSource(join(dir, 'in'));
  destination = await listen('127.0.0.1:0', () => ({
    onMessage({ type }, _body, channel) {
      if (type === silentAt) return;
      const welcome = { protocol: 3, role: 'destination', freeBytes: 1e9, memoryBytes: 1e9 };
      if (type === HELLO) channel.send(WELCOME, 0, encodeJson(welcome));
      if (type === IMAGES) channel.send(READY, 0, encodeJson({}));
    },
  }));
});
afterEach(async () => {
  image.close();
  await destination.close();
  rmSync(dir, { recursive: true });
});

function start(answerMs: number): Ejection {
  const to = `127.0.0.1:${destination.address.port}`;
  return new Ejection({ vms: [{ name: 'a', image }], to, intermediates: [], answerMs });
}

describe('a destination that falls silent', () => {
  test.each([
    ['before it is ready', MessageType.IMAGES, /did not say that it is ready within 100 ms/],
    ['before it has confirmed', MessageType.DIVIDED, /did not confirm that it knows .* within 100 ms/],
  ])('%s is given up', async (_, type, text) => {
    silentAt = type;
    const summary = await start(100).run();
    expect(summary).toMatchObject({ outcome: 'aborted', exitTimeMs: null, reason: { code: 'PEER_UNREACHABLE' } });
    expect(summary.reason!.message).toMatch(text);
  });

  test.each([
    ['before it is ready', MessageType.IMAGES],
    ['before it has confirmed', MessageType.DIVIDED],
  ])('%s does not keep a source from being cancelled', async (_, type) => {
    silentAt = type;
    const ejection = start(30_000);
    setTimeout(() => ejection.cancel('enough'), 100);
    expect((await ejection.run()).reason).toEqual({ code: 'CANCELLED', message: 'enough' });
  });
});

describe('the exit', () => {
  test('is when the last frame is acknowledged, and not before', async () => {
    writeFileSync(
      join(dir, 'in'),
      new Uint8Array(64 * 4096 * 3).map((_, i) => (i * i) >> 7),
    );
    image = new FileSource(join(dir, 'in'));
    const heard: string[] = [];
    const slow = await listen('127.0.0.1:0', () => ({
      onMessage({ type, id }, _body, channel) {
        const welcome = { protocol: 3, role: 'destination', freeBytes: 1e9, memoryBytes: 1e9 };
        if (type === HELLO) channel.send(WELCOME, 0, encodeJson(welcome));
        if (type === IMAGES) channel.send(READY, 0, encodeJson({}));
        if (type === MessageType.PUT) {
          setTimeout(() => {
            heard.push(`stored ${id}`);
            channel.send(MessageType.STORED, id, encodeU64s(1e9));
          }, 100 * id);
        }
        if (type === MessageType.DIVIDED) {
          heard.push('divided');
          channel.send(MessageType.DIVIDED, 0, encodeJson({}));
        }
      },
    }));
    const to = `127.0.0.1:${slow.address.port}`;
    const summary = await new Ejection({ vms: [{ name: 'a', image }], to, intermediates: [] }).run();
    await slow.close();
    expect(summary.outcome).toBe('completed');
    expect(heard).toEqual(['stored 1', 'stored 2', 'stored 3', 'divided']);
    expect(summary.exitTimeMs).toBeGreaterThan(300);
  });
});
