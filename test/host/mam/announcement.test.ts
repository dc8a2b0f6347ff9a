import { createHmac, hkdfSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  announcementKey,
  decodeAnnouncement,
  encodeAnnouncement,
  MAX_ANNOUNCEMENT_BYTES,
} from '#abdm/host/mam/announcement.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { announcement, ID, withKey } from './ether.js';

const key = announcementKey(withKey(7))!;
const said = announcement({ address: 'node-1.example:7000', sequence: 2 ** 40 });

/** The datagram with some bytes changed, and with a tag that fits it. */
function signed(change: (body: Buffer) => Buffer | undefined): Uint8Array {
  const body = Buffer.from(encodeAnnouncement(said, null));
  const changed = change(body) ?? body;
  return Buffer.concat([changed, createHmac('sha256', key).update(changed).digest()]);
}

describe('an announcement', () => {
  it('survives the wire, with a key and without', () => {
    for (const leaving of [true, false]) {
      for (const one of [key, null]) {
        expect(decodeAnnouncement(encodeAnnouncement({ ...said, leaving }, one), one)).toEqual({ ...said, leaving });
      }
    }
  });

  it('is laid out as it is drawn', () => {
    const bytes = encodeAnnouncement(said, key);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    expect(Buffer.from(bytes.subarray(0, 4)).toString()).toBe('ABDA');
    expect([...bytes.subarray(4, 8)]).toEqual([1, 0, 3, 0]);
    expect(Buffer.from(bytes.subarray(8, 24)).toString('hex')).toBe(ID);
    const numbers = [24, 32, 40, 48, 56].map((at) => Number(view.getBigUint64(at, true)));
    expect(numbers).toEqual([said.startedMs, said.sequence, said.clockMs, said.freeBytes, said.memoryBytes]);
    expect([64, 66, 68, 70].map((at) => view.getUint16(at, true))).toEqual([250, 3, 19, 0]);
    expect(Buffer.from(bytes.subarray(72, 91)).toString()).toBe('node-1.example:7000');
    const macKey = new Uint8Array(hkdfSync('sha256', withKey(7).clusterKey!, '', 'abdm announcements', 32));
    const mac = createHmac('sha256', macKey).update(bytes.subarray(0, 91)).digest();
    expect(Buffer.from(bytes.subarray(91)).equals(mac)).toBe(true);
  });

  it('fits into a datagram whatever its address, and shows loads and connections at most as 16 bits', () => {
    const address = `${'a'.repeat(253)}:65535`;
    const bytes = encodeAnnouncement({ ...said, address, load: 1e6, connections: 1e6 }, key);
    expect(bytes.byteLength).toBeLessThanOrEqual(MAX_ANNOUNCEMENT_BYTES);
    expect(decodeAnnouncement(bytes, key)).toMatchObject({ address, load: 65.535, connections: 65_535 });
  });

  it('is refused with any bit of it changed', () => {
    const good = encodeAnnouncement(said, key);
    for (let bit = 0; bit < good.byteLength * 8; bit++) {
      const bad = Uint8Array.from(good);
      bad[bit >> 3]! ^= 1 << (bit & 7);
      expect(decodeAnnouncement(bad, key), `bit ${bit}`).toBeTypeOf('string');
    }
  });

  it('is refused at any other length', () => {
    for (const one of [key, null]) {
      const good = encodeAnnouncement(said, one);
      for (let bytes = 0; bytes < good.byteLength; bytes++) {
        expect(decodeAnnouncement(good.subarray(0, bytes), one), `${bytes} bytes`).toBeTypeOf('string');
      }
      for (const more of [1, 31, 33, 1200, 60_000]) {
        expect(decodeAnnouncement(Buffer.concat([good, Buffer.alloc(more)]), one)).toBe('malformed');
      }
    }
  });

  it('is forged if it was made with another key, without one, or with one where there is none', () => {
    expect(decodeAnnouncement(encodeAnnouncement(said, announcementKey(withKey(8))), key)).toBe('forged');
    expect(decodeAnnouncement(encodeAnnouncement(said, withKey(7).clusterKey), key)).toBe('forged');
    expect(decodeAnnouncement(encodeAnnouncement(said, null), key)).toBe('forged');
    expect(decodeAnnouncement(encodeAnnouncement(said, key), null)).toBe('forged');
  });

  it.each<[string, (body: Buffer) => Buffer | undefined]>([
    ['another magic', (body) => void body.writeUInt8(0x42, 0)],
    ['another version', (body) => void body.writeUInt8(2, 4)],
    ['unknown flags', (body) => void body.writeUInt8(2, 5)],
    ['something where 0 belongs', (body) => void body.writeUInt16LE(1, 70)],
    ['a number that is not exact', (body) => void body.writeBigUInt64LE(2n ** 53n, 32)],
    ['more free than there is', (body) => void body.writeBigUInt64LE(16_000_000_001n, 48)],
    ['an address without a port', (body) => void body.write('node-1.example.7000', 72)],
    ['an address that would move the cursor', (body) => void body.write('\x1b[2J-1.example:7000', 72)],
    ['an address of port 0', (body) => Buffer.concat([body.subarray(0, 72), Buffer.from('node-1.example:0000')])],
    ['an address that ends behind it', (body) => void body.writeUInt16LE(20, 68)],
    ['no address', (body) => body.fill(0, 68).subarray(0, 72)],
  ])('is malformed with %s, even if its tag fits', (_, change) => {
    expect(
      decodeAnnouncement(
        signed(() => undefined),
        key,
      ),
    ).toEqual(said);
    expect(decodeAnnouncement(signed(change), key)).toBe('malformed');
  });

  it('needs the cluster key: without security there is none, with certificates alone it is refused', () => {
    expect(announcementKey(OPEN)).toBe(null);
    const tls = { cert: '', key: '', ca: '' };
    expect(() => announcementKey({ clusterKey: null, tls })).toThrow(/cluster key/);
    expect(announcementKey({ ...withKey(7), tls })).toEqual(key);
  });
});
