// A source that does not get to know whether its VM has left: nothing is taken away from the nodes, and what was stopped stays stopped, since somebody
// else may run it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, MessageType } from '#abdm/host/wire/messages.js';
import { type Child, nodeChild } from '../temp.js';
import { Abdm, cleanUp } from './processes.js';
import { Scene } from './scene.js';

afterEach(cleanUp);

/** A node that keeps everything, and is killed or stopped when it hears that all of it is there. */
async function lastNode(how: 'killed' | 'stopped') {
  let hear!: () => void;
  const heard = new Promise<void>((resolve) => {
    hear = resolve;
  });
  const blocks = new Set<number>();
  let isOver = false;
  const listener = await listen(
    '127.0.0.1:0',
    () => ({
      onMessage: ({ type, id }, body, channel) => {
        if (isOver) return;
        if (type === MessageType.HELLO) {
          const room = { freeBytes: 1e9, memoryBytes: 1e9 };
          const welcome = { protocol: 3, role: 'intermediate', id: 'a'.repeat(32), ...room };
          channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
        } else if (type === MessageType.PUT) {
          blocks.add(id);
          channel.send(MessageType.STORED, id, encodeU64s(1e9));
        } else if (type === MessageType.PING) channel.send(MessageType.PONG, 0);
        else if (type === MessageType.DROP) blocks.clear();
        else if (type === MessageType.REGISTER && decodeJson(body, 'REGISTER').complete === true) {
          isOver = true;
          hear();
          if (how === 'killed') void listener.close();
        } else channel.send(MessageType.LEASED, 0, encodeJson({ expiresInMs: 1000 }));
      },
    }),
    { lingerMs: 100 },
  );
  onTestFinished(() => listener.close());
  return { address: `127.0.0.1:${listener.address.port}`, heard, blocks };
}

const isStopped = (pid: number) => /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));

describe.skipIf(process.platform !== 'linux')('a source whose last node is lost just when it is to confirm', () => {
  let vm: Child;
  let scene: Scene;
  beforeEach(async () => {
    vm = await nodeChild("globalThis.b = require('crypto').randomBytes(5e6); console.log(1)");
    scene = new Scene();
  });
  const park = (address: string) => {
    const how = ['--park', '--vm-key', join(scene.dir, 'key'), '--intermediates', address];
    return new Abdm(['eject', `a=process:${vm.pid}`, ...how]);
  };

  test('is paused-recoverable: the process stays stopped, and people are told', async () => {
    const node = await lastNode('killed');
    const { code, summary, events, stderr } = await park(node.address).done;
    expect([code, summary.outcome, stderr]).toEqual([3, 'paused-recoverable', '']);
    expect(isStopped(vm.pid)).toBe(true);
    const notices = events.filter(({ type }) => type === 'notice').map(({ text }) => text);
    expect(notices).toContainEqual(expect.stringMatching(new RegExp(`process ${vm.pid} stays stopped.*kill -CONT`)));
    expect(readFileSync(join(scene.dir, 'key'), 'latin1')).toMatch(/^[0-9a-f]{64}\n$/);
  });

  test('and is ended in a hurry, likewise; nothing is taken from the node', async () => {
    const node = await lastNode('stopped');
    const source = park(node.address);
    await node.heard;
    source.signal('SIGINT');
    await source.event(({ type, text }) => type === 'notice' && /past the exit/.test(text));
    const { code, events } = await source.stop('SIGINT');
    expect(code).toBe(3);
    expect(events.at(-1)).toMatchObject({ type: 'notice', text: expect.stringContaining('stays stopped') });
    expect(isStopped(vm.pid)).toBe(true);
    expect(node.blocks.size).toBeGreaterThan(0);
  });
});
