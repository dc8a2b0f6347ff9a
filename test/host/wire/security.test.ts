// What is read from key and certificate files, and what of it is refused.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { isLoopback } from '#abdm/host/wire/address.js';
import { deriveKey, generateKey, isSecured, loadSecurity, OPEN, subKey } from '#abdm/host/wire/security.js';
import { Authority } from '../../certificates.js';
import { tempDir } from '../temp.js';

/** Writes files into a fresh directory, and gives their paths. */
function files<T extends Record<string, string>>(contents: T, mode = 0o600): T {
  const dir = tempDir();
  const paths = Object.entries(contents).map(([name, text]) => {
    writeFileSync(join(dir, name), text, { mode });
    return [name, join(dir, name)];
  });
  return Object.fromEntries(paths);
}

const usage = (message: RegExp) => expect.objectContaining({ code: 'USAGE', message: expect.stringMatching(message) });

describe('a cluster key', () => {
  it('is what keygen has made', () => {
    const text = generateKey();
    expect(text).toMatch(/^[0-9a-f]{64}\n$/);
    expect(generateKey()).not.toBe(text);
    const { keyFile } = files({ keyFile: text });
    const security = loadSecurity({ keyFile });
    expect(Buffer.from(security.clusterKey!).toString('hex')).toBe(text.trim());
    expect(security).toMatchObject({ tls: null, warnings: [] });
    expect(isSecured(security)).toBe(true);
  });

  it('gives a key of its own for each purpose', () => {
    const security = { ...OPEN, clusterKey: new Uint8Array(32).fill(7) };
    const keys = ['a', 'b', 'ab'].map((label) => Buffer.from(subKey(security, label)!).toString('hex'));
    expect(new Set(keys).size).toBe(3);
    expect(keys).not.toContain('07'.repeat(32));
    expect(subKey(security, 'a')).toEqual(deriveKey(security.clusterKey, 'a'));
    expect(subKey(OPEN, 'a')).toBe(null);
    expect(isSecured(OPEN)).toBe(false);
    expect(loadSecurity({})).toEqual({ ...OPEN, warnings: [] });
  });

  it('is warned about when others can read it', () => {
    const { keyFile } = files({ keyFile: generateKey() }, 0o644);
    expect(loadSecurity({ keyFile }).warnings).toEqual([expect.stringContaining(`chmod 600 ${keyFile}`)]);
  });

  it('is refused if it is none', () => {
    const { short, odd, empty } = files({ short: 'ab'.repeat(31), odd: `${'ab'.repeat(31)}zz`, empty: '\n' });
    expect(() => loadSecurity({ keyFile: short })).toThrow(usage(/short holds 62 hexadecimal digits, not 64/));
    expect(() => loadSecurity({ keyFile: odd })).toThrow(usage(/odd holds something else.*abdm keygen/));
    expect(() => loadSecurity({ keyFile: empty })).toThrow(usage(/empty holds 0 hexadecimal digits/));
    expect(() => loadSecurity({ keyFile: `${empty}.gone` })).toThrow(usage(/cannot read .*empty\.gone: ENOENT/));
    expect(() => loadSecurity({ keyFile: tempDir() })).toThrow(usage(/cannot read .*EISDIR/));
  });
});

describe('certificates', () => {
  const ours = new Authority('ours');
  const { cert, key } = ours.issue('node');
  const other = ours.issue('other');
  const expired = ours.issue('late', [-9, -1]);

  it('are read', () => {
    const { tlsCert, tlsKey, tlsCa } = files({ tlsCert: cert, tlsKey: key, tlsCa: ours.cert });
    const security = loadSecurity({ tlsCert, tlsKey, tlsCa });
    expect(security).toEqual({ clusterKey: null, tls: { cert, key, ca: ours.cert }, warnings: [] });
    expect(isSecured(security)).toBe(true);
  });

  it('are refused where they cannot be meant', () => {
    const paths = files({ cert, key, ca: ours.cert, otherKey: other.key, late: expired.cert, lateKey: expired.key });
    const load = (tlsCert: string, tlsKey: string, tlsCa: string) => () => loadSecurity({ tlsCert, tlsKey, tlsCa });
    expect(() => loadSecurity({ tlsCert: paths.cert })).toThrow(usage(/belong together/));
    expect(() => loadSecurity({ tlsCert: paths.cert, tlsKey: paths.key })).toThrow(usage(/belong together/));
    expect(load(paths.cert, paths.otherKey, paths.ca)).toThrow(usage(/otherKey is not the key of/));
    expect(load(paths.key, paths.key, paths.ca)).toThrow(usage(/key does not hold a certificate/));
    expect(load(paths.cert, paths.cert, paths.ca)).toThrow(usage(/cert does not hold a private key/));
    expect(load(paths.cert, paths.key, paths.key)).toThrow(usage(/does not hold a certificate of the cluster's CA/));
    expect(load(paths.late, paths.lateKey, paths.ca)).toThrow(usage(/late is valid from .* not now/));
    expect(load(`${paths.cert}.gone`, paths.key, paths.ca)).toThrow(usage(/cannot read/));
  });
});

it('knows which addresses cannot leave this machine', () => {
  const inside = ['127.0.0.1', '127.3.2.1', '::1', '0:0:0:0:0:0:0:1', '::ffff:127.0.0.1', 'localhost', 'LOCALHOST'];
  const outside = [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '127.0.0.1.example',
    '1.127.0.0',
    '::2',
    'fe80::1',
    'node7',
    'a::1',
    '',
  ];
  expect(inside.filter((host) => !isLoopback(host))).toEqual([]);
  expect(outside.filter(isLoopback)).toEqual([]);
});
