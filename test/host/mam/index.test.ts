// The index over real sockets: who is believed, and that those who are not cost nothing and harm nobody.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { describe, expect, it } from 'vitest';
import { announcementKey, encodeAnnouncement } from '#abdm/host/mam/announcement.js';
import { NodeIndex } from '#abdm/host/mam/index.js';
import { sendTo } from '#abdm/host/mam/places.js';
import { OPEN, type Security } from '#abdm/host/wire/security.js';
import { skipped } from '../../skipped.js';
import { until } from '../wire/pair.js';
import { announcement, group, Mouth, openIndex, withKey } from './ether.js';

const security = withKey(7);
const key = announcementKey(security)!;

async function scene(secured: Security = security): Promise<{ index: NodeIndex; mouth: Mouth; place: string }> {
  const place = group();
  const index = await openIndex({ security: secured, announcements: [place] });
  return { index, mouth: await Mouth.at(place), place };
}

describe('the index', () => {
  it('hears a group, tells of what changes, and is quiet when closed', async () => {
    const { index, mouth } = await scene();
    let changes = 0;
    const end = index.onChange(() => changes++);
    await mouth.announce({ sequence: 1 }, key);
    await until(() => index.counts.heard === 1);
    expect(index.nodes()).toMatchObject([{ address: '127.0.0.1:7001', suspect: false, connections: 3 }]);
    expect(changes).toBe(1);
    await mouth.announce({ sequence: 2 }, key);
    await until(() => index.counts.heard === 2);
    expect(changes).toBe(1);
    index.suspect('127.0.0.1:7001');
    index.suspect('127.0.0.1:7001');
    expect(changes).toBe(2);
    index.trust('127.0.0.1:7001');
    expect(changes).toBe(3);
    end();
    index.suspect('127.0.0.1:7001');
    expect(changes).toBe(3);
    index.close();
  });

  it('is one of many that listen on this host', async () => {
    const { index, mouth, place } = await scene();
    const other = await openIndex({ security, announcements: [place] });
    await mouth.announce({}, key);
    await until(() => index.counts.heard === 1 && other.counts.heard === 1);
  });

  it('hears what is sent over a real interface, unless it has no key', async ({ skip }) => {
    const addresses = Object.values(networkInterfaces()).flatMap((some) => some ?? []);
    const outer = addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
    if (!outer) return skipped(skip, 'this host has only loopback');
    const { index, mouth, place } = await scene();
    const open = await openIndex({ security: OPEN, announcements: [place] });
    const failures: unknown[] = [];
    const sender = await sendTo([place], false, outer, (error) => failures.push(error));
    await sender.say(() => encodeAnnouncement(announcement({ address: `${outer}:7000` }), key));
    await sender.say(() => encodeAnnouncement(announcement({ address: `${outer}:7000` }), null));
    sender.close();
    await until(() => index.counts.heard === 1 && index.counts.forged === 1);
    await mouth.announce({}, null);
    await until(() => open.counts.heard === 1);
    expect(open.nodes()).toMatchObject([{ address: '127.0.0.1:7001' }]);
    expect(failures).toEqual([]);
  });

  it('hears peers that send to its own address, which it shares with nobody', async () => {
    const taken = createSocket('udp4').bind(0, '127.0.0.1');
    await once(taken, 'listening');
    const place = `127.0.0.1:${taken.address().port}`;
    await expect(NodeIndex.open({ security, announcements: [group(), place] })).rejects.toThrow(/EADDRINUSE/);
    taken.close();
    await once(taken, 'close');
    const index = await openIndex({ security, announcements: [group(), place] });
    const mouth = await Mouth.at(place);
    await mouth.announce({}, key);
    await until(() => index.nodes().length === 1);
    await expect(NodeIndex.open({ security, announcements: [place] })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('ignores and counts what is forged, replayed, stale, malformed or foreign, and goes on with the honest', async () => {
    const { index, mouth } = await scene();
    const honest = encodeAnnouncement(announcement({ sequence: 10 }), key);
    await mouth.say(honest);
    const wrong: [keyof NodeIndex['counts'], Uint8Array][] = [
      ['replayed', honest],
      ['replayed', encodeAnnouncement(announcement({ sequence: 9, leaving: true }), key)],
      ['forged', encodeAnnouncement(announcement({ sequence: 11, leaving: true }), announcementKey(withKey(8)))],
      ['forged', encodeAnnouncement(announcement({ sequence: 11 }), null)],
      ['stale', encodeAnnouncement(announcement({ sequence: 11, clockMs: Date.now() - 31_000 }), key)],
      ['stale', encodeAnnouncement(announcement({ sequence: 11, clockMs: Date.now() + 32_000 }), key)],
      ['malformed', honest.subarray(0, honest.byteLength - 1)],
      ['malformed', new Uint8Array(0)],
      ['malformed', new Uint8Array(1201)],
      ['malformed', new Uint8Array(60_000).fill(0x41)],
      ['foreign', encodeAnnouncement(announcement({ sequence: 11, protocol: 1 }), key)],
    ];
    const expected: Record<string, number> = { heard: 1, ignored: 0 };
    for (const [why, datagram] of wrong) {
      expected[why] = (expected[why] ?? 0) + 1;
      await mouth.say(datagram);
    }
    await until(() => index.counts.foreign === 1);
    expect(index.counts).toEqual(expected);
    expect(index.nodes()).toMatchObject([{ suspect: false, freeBytes: 5e9 }]);
    await mouth.announce({ sequence: 11, freeBytes: 1 }, key);
    await until(() => index.nodes()[0]!.freeBytes === 1);
  });

  it('does not see another cluster on the same group, nor a signed node without a key', async () => {
    const { index, mouth, place } = await scene();
    const others = await openIndex({ security: withKey(8), announcements: [place] });
    const open = await openIndex({ security: OPEN, announcements: [place] });
    await mouth.announce({ address: '127.0.0.1:1' }, key);
    await mouth.announce({ address: '127.0.0.1:2' }, announcementKey(withKey(8)));
    await mouth.announce({ address: '127.0.0.1:3' }, null);
    const seen = () => [index, others, open].map((one) => one.nodes().map(({ address }) => address));
    await until(() => [index, others, open].every(({ counts }) => counts.heard + counts.forged === 3));
    expect(seen()).toEqual([['127.0.0.1:1'], ['127.0.0.1:2'], ['127.0.0.1:3']]);
  });

  it('without a key joins groups on loopback only, and refuses other addresses', async () => {
    const { index, mouth } = await scene(OPEN);
    await mouth.announce({}, null);
    await until(() => index.nodes().length === 1);
    const elsewhere = NodeIndex.open({ security: OPEN, announcements: ['0.0.0.0:7077'] });
    await expect(elsewhere).rejects.toThrow(/without the cluster key \(--key\) announcements stay on loopback/);
  });

  it('is refused with certificates alone, unless the nodes are listed', async () => {
    const tls: Security = { clusterKey: null, tls: { cert: '', key: '', ca: '' } };
    await expect(NodeIndex.open({ security: tls })).rejects.toThrow(/cluster key/);
    const index = await openIndex({ security: tls, listed: ['10.0.0.1:7000'] });
    expect(index.nodes()).toMatchObject([{ address: '10.0.0.1:7000', id: null, listed: true, suspect: false }]);
  });

  it.each(['nowhere', '[::1]:7077', '10.0.0.1:0'])('says what is wrong with %s', async (place) => {
    await expect(NodeIndex.open({ security, announcements: [place] })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('needs nodes that are listed, by address, or somewhere to listen', async () => {
    await expect(NodeIndex.open({ security, announcements: [] })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(NodeIndex.open({ security, listed: ['10.0.0.1'] })).rejects.toMatchObject({ code: 'USAGE' });
    expect((await openIndex({ security, listed: [], announcements: [] })).nodes()).toEqual([]);
  });

  it('refreshes listed nodes from announcements, and takes no others', async () => {
    const place = group();
    const index = await openIndex({ security, listed: ['127.0.0.1:7001'], announcements: [place] });
    const mouth = await Mouth.at(place);
    await mouth.announce({ address: '127.0.0.1:7002' }, key);
    await mouth.announce({ address: '127.0.0.1:7001' }, key);
    await until(() => index.counts.heard === 1);
    expect(index.counts.ignored).toBe(1);
    expect(index.nodes()).toMatchObject([{ address: '127.0.0.1:7001', listed: true, freeBytes: 5e9 }]);
  });

  it('keeps a bounded number of nodes', async () => {
    const { index, mouth } = await scene();
    for (let port = 1; port <= 300; port++) await mouth.announce({ address: `127.0.0.1:${port}` }, key);
    await until(() => index.counts.heard + index.counts.ignored === 300);
    expect(index.counts).toMatchObject({ heard: 256, ignored: 44 });
    expect(index.nodes()).toHaveLength(256);
  });

  it('costs bounded memory in a flood of forgeries, and hears the honest meanwhile', async () => {
    const { index, mouth, place } = await scene();
    const [host, port] = place.split(':');
    // Sends forged and malformed datagrams as fast as it can until it is ended.
    const flood = spawn(process.execPath, [
      '-e',
      `const socket = require('node:dgram').createSocket('udp4');
       const forged = Buffer.from('${Buffer.from(encodeAnnouncement(announcement(), announcementKey(withKey(8)))).toString('hex')}', 'hex');
       socket.bind(0, '127.0.0.1', () => {
         socket.setMulticastInterface('127.0.0.1');
         let sent = 0;
         const next = () => socket.send(sent++ % 10 ? forged : Buffer.alloc(1300), ${port}, '${host}', next);
         for (let i = 0; i < 64; i++) next();
       });`,
    ]);
    try {
      await until(() => index.counts.forged > 5_000, 30_000);
      const before = process.memoryUsage();
      const flooded = index.counts.forged;
      let sequence = 0;
      let heard = 0;
      await until(() => {
        void mouth.announce({ sequence: ++sequence }, key);
        heard = index.counts.heard;
        return index.counts.forged > flooded + 60_000 && heard > 0;
      }, 45_000);
      const { rss } = process.memoryUsage();
      expect(rss - before.rss).toBeLessThan(96 * 2 ** 20);
      expect(index.nodes()).toHaveLength(1);
      expect(index.counts.malformed).toBeGreaterThan(1000);
    } finally {
      flood.kill('SIGKILL');
      await once(flood, 'close');
    }
    const { heard } = index.counts;
    await mouth.announce({ sequence: 1e9 }, key);
    await until(() => index.counts.heard > heard);
  });
});
