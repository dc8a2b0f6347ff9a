// abdm renew, against nodes that say what the test wants.
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { listen } from '#abdm/host/wire/listen.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { Abdm, cleanUp } from './processes.js';

afterEach(cleanUp);

const ONE = '1'.repeat(32);
const TWO = '2'.repeat(32);

/** A node that knows these migrations of VM a, and what it was asked. */
async function node(...migrations: string[]) {
  const asked: object[] = [];
  const server = await listen('127.0.0.1:0', () => ({
    onMessage({ type }, body, channel) {
      const json = decodeJson(body, 'anything');
      const room = { protocol: 3, role: 'intermediate', id: 'a'.repeat(32), freeBytes: 0, memoryBytes: 0 };
      const about = {
        vms: ['a', 'b'],
        parked: true,
        complete: true,
        frames: 3,
        replicas: 1,
        voters: [],
        claimed: null,
      };
      if (type === MessageType.LOOKUP) {
        const found = json.name !== 'a' ? [] : migrations;
        const all = found.map((migration) => ({ migration, ...about, sourceConnected: false, expiresInMs: 1000 }));
        channel.send(MessageType.FOUND, 0, encodeJson({ found: all }));
      } else if (type === MessageType.HELLO) {
        asked.push({ migration: json.migration });
        channel.send(MessageType.WELCOME, 0, encodeJson(room));
      } else {
        asked.push({ type, ...json });
        channel.send(MessageType.LEASED, 0, encodeJson({ expiresInMs: json.leaseMs as number }));
      }
    },
  }));
  onTestFinished(() => server.close());
  return { address: `127.0.0.1:${server.address.port}`, asked };
}

const renew = (name: string, list: string[], lease = '2h') =>
  new Abdm(['renew', name, '--lease', lease, '--intermediates', list.join(',')]).done;

test('renews at every node that has something of the VM, and at no other', async () => {
  const [first, second, other] = [await node(ONE), await node(ONE), await node()];
  const { code, events } = await renew('a', [first.address, second.address, other.address]);
  expect(code).toBe(0);
  expect(events.at(-1)).toMatchObject({ type: 'renewed', name: 'a', migration: ONE, nodes: 2, expiresInMs: 7_200_000 });
  const lease = [{ migration: ONE }, { type: MessageType.LEASE, leaseMs: 7_200_000 }];
  expect([first.asked, second.asked, other.asked]).toEqual([lease, lease, []]);
});

test('says that nobody has it, that several do, and who could not be asked', async () => {
  const [first, second] = [await node(ONE), await node(TWO)];
  expect(await renew('c', [first.address])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no node knows'),
  });
  const twice = await renew('a', [first.address, second.address]);
  expect(twice).toMatchObject({ code: 1, stderr: expect.stringMatching(new RegExp(`2 migrations.*${ONE}.*${TWO}`)) });
  const partly = await renew('a', [first.address, '127.0.0.1:1']);
  expect(partly).toMatchObject({ code: 2, stderr: expect.stringMatching(/127\.0\.0\.1:1/) });
  expect(partly.events.find(({ type }) => type === 'renewed')).toMatchObject({ nodes: 1 });
  const nobody = await renew('a', ['127.0.0.1:1']);
  expect(nobody).toMatchObject({ code: 2, stderr: expect.stringMatching(/127\.0\.0\.1:1/) });
});
