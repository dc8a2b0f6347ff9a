// A migration as QEMU does it by itself, from one host to the other over TCP: what ours is held against.
import { migrate, migrateIncoming, setCapabilities, setParameters, startPostCopy } from '#abdm/host/qemu/monitor.js';
import type { Machine } from './machine.js';
import { now } from './serial.js';

const PORT = 4444;
/** As fast as the links: QEMU's own default is 128 MiB a second. */
const BYTES_PER_S = 100e9;

export type StockMode = 'pre-copy' | 'post-copy';

/** Of a migration, in milliseconds since 1970. */
export interface Times {
  /** Whoever asks for it was started: stock has been there all the time. */
  readonly startedAtMs: number;
  /** The source's QEMU was told to migrate. */
  readonly beganAtMs: number;
  /** The source's QEMU was gone. */
  readonly exitAtMs: number;
  /** All of it was there. */
  readonly endedAtMs: number;
}

/** In post-copy the guest stops at once, as ours does. The source's QEMU quits as soon as it may. */
export async function stock(mode: StockMode, source: Machine, destination: Machine, address: string): Promise<Times> {
  for (const { qmp } of [source, destination]) {
    await setCapabilities(qmp, { 'postcopy-ram': mode === 'post-copy' });
    await setParameters(qmp, { 'max-bandwidth': BYTES_PER_S });
  }
  await migrateIncoming(destination.qmp, `tcp:0.0.0.0:${PORT}`);
  const startedAtMs = now();
  await migrate(source.qmp, `tcp:${address}:${PORT}`);
  if (mode === 'post-copy') {
    await source.happened('MIGRATION', 'active');
    await startPostCopy(source.qmp);
  }
  const left = source.happened('MIGRATION', 'completed').then(async () => {
    await source.qmp.execute('quit');
    return source.ended;
  });
  const beganAtMs = await source.happened('MIGRATION', 'setup');
  const [exitAtMs, endedAtMs] = await Promise.all([left, destination.happened('MIGRATION', 'completed')]);
  return { startedAtMs, beganAtMs, exitAtMs, endedAtMs };
}
