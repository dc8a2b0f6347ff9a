// Valkey as the only thing between two hosts, which are network namespaces: nothing of ours runs from the source's end until the destination begins.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { generateKey } from '#abdm/host/wire/security.js';
import { writeImage } from '../../../bench/faults/image.js';
import { Role } from '../../../bench/faults/role.js';
import { Network, unavailable } from '../../../bench/network/namespaces.js';
import { Servers } from '../../../bench/stores/servers.js';
import { missing, skipped } from '../../skipped.js';
import { tempDir } from '../temp.js';

const PAGES = 16_384;
const APART_MS = 5_000;

test.skipIf(missing('valkey-server'))(
  'a destination that is started five seconds after the source has ended gets all of it',
  async ({ skip }) => {
    const reason = unavailable();
    if (reason) return skipped(skip, reason);
    const dir = tempDir();
    const hosts = ['source', 'store', 'destination'].map((name) => ({ name, bitsPerS: 400e6 }));
    const network = new Network(hosts);
    onTestFinished(() => network.close());
    const [host, launcher] = [network.address('store'), network.on('store')];
    const servers = new Servers(dir, { host, launcher });
    onTestFinished(() => servers.end());
    const { address, port } = await servers.redis('valkey-server');
    const [enter, ...on] = launcher as [string, ...string[]];
    const size = () => execFileSync(enter, [...on, 'valkey-cli', '-h', host, '-p', String(port), 'DBSIZE']);
    const [image, out, vmKey, key] = ['in', 'out', 'a.vmkey', 'cluster.key'].map((name) => join(dir, name)) as string[];
    writeImage(image!, PAGES, 1);
    writeFileSync(key!, generateKey(), { mode: 0o600 });
    const both = ['--vm-key', vmKey!, '--key', key!, '--store', `valkey://${address}`];
    const run = async (host: string, ...args: string[]) => {
      const role = new Role(
        host,
        [...args, ...both],
        join(dir, `${host}.log`),
        { XDG_RUNTIME_DIR: dir },
        network.on(host),
      );
      onTestFinished(() => role.signal('SIGKILL'));
      await role.ended;
      expect(role.summary).toMatchObject({ outcome: 'completed', reason: null });
    };

    await run('source', 'eject', `a=file:${image}`, '--park');
    expect(Number(size())).toBeGreaterThan(PAGES / 64);
    await sleep(APART_MS);
    await run('destination', 'merge', `a=file:${out}`, '--parked');
    expect(readFileSync(out!).equals(readFileSync(image!))).toBe(true);
    expect(Number(size())).toBe(0);
  },
);
