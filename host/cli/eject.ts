// abdm eject: from options to an Ejection, and from what it says to an exit code.

import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Compression } from '../../bindings/divider.js';
import { AbdmError } from '../../bindings/errors.js';
import type { ImageSource } from '../image/image.js';
import { type ImageSpec, openSource } from '../image/parse.js';
import { Ejection } from '../source/source.js';
import type { Mode, Summary } from '../summary.js';
import { openControl } from './control.js';
import { EXIT, exitCodeOf, onSignal } from './exit.js';
import { defaultVmKey, parseImages } from './images.js';
import { createKeyFile } from './keys.js';
import type { Output } from './output.js';
import { Meter } from './progress.js';
import { type ClusterFlags, openSecurity } from './security.js';
import { formatMs } from './sizes.js';

export interface EjectFlags extends ClusterFlags {
  readonly park?: boolean;
  readonly lease?: number;
  readonly vmKey?: string;
  readonly direct?: boolean;
  readonly replicas: number;
  readonly compress: Compression;
  readonly mode?: Mode;
  readonly rounds?: number;
  readonly maxDowntime?: number;
  readonly rate?: number;
}

const PARKED_MS = 24 * 3_600_000;

export async function eject(output: Output, images: string[], flags: EjectFlags): Promise<number> {
  const { to, park = false, lease = PARKED_MS, direct = false, replicas, compress, rate, announcements } = flags;
  checkFlags(flags);
  const specs = parseImages(images);
  const security = openSecurity(output, flags);
  const names = specs.map(({ name }) => name);
  const keyPath = resolve(flags.vmKey ?? defaultVmKey(names));
  const vmKey = park ? createKeyFile(keyPath) : null;
  if (vmKey) output.event({ type: 'vm-key', path: keyPath } as { type: string });

  const vms: { name: string; image: ImageSource }[] = [];
  let control: Awaited<ReturnType<typeof openControl>> | undefined;
  let ending: Summary | null = null;
  // A signal before the migration has begun: whatever process was stopped goes on when this one ends.
  let cancel = (signal: string): void => {
    output.error(new AbdmError('CANCELLED', `cancelled by ${signal}`));
    process.exit(EXIT.aborted);
  };
  let ejection: Ejection | undefined;
  // Others may run the VMs, or not: here they do not go on, since two must never run.
  const abandon = () => {
    for (const { image } of vms) image.abandon?.();
    sayWhoStaysStopped(output, specs);
  };
  onSignal(
    (signal) => cancel(signal),
    () => {
      if (!ejection?.committed) return EXIT.aborted;
      abandon();
      return EXIT.recoverable;
    },
  );
  try {
    for (const spec of specs) vms.push({ name: spec.name, image: await openSource(spec) });
    const leaving = new Ejection({
      vms,
      intermediates: direct ? [] : (flags.intermediates ?? 'announced'),
      direct,
      replicas,
      compress,
      security,
      ...(to !== undefined && { to }),
      ...(flags.mode && { mode: flags.mode }),
      ...(flags.rounds && { rounds: flags.rounds }),
      ...(flags.maxDowntime && { maxDowntimeMs: flags.maxDowntime }),
      ...(vmKey && { park: { leaseMs: lease }, vmKey }),
      ...(announcements && { announcements }),
      ...(rate !== undefined && { rateBytesPerS: rate }),
    });
    ejection = leaving;
    cancel = (signal) => {
      if (!leaving.cancel(`cancelled by ${signal}`)) output.notice(tooLate(names));
    };
    const meter = new Meter(() => leaving.status());
    control = await openControl(output, {
      role: 'eject',
      names,
      status: () => meter.read(),
      cancel: (reason) => {
        if (!leaving.cancel(reason)) throw new AbdmError('USAGE', tooLate(names));
      },
      setRate: (bytesPerS) => leaving.setRate(bytesPerS),
    });
    output.live('eject', meter);
    ending = await leaving.run();
    if (ending.outcome === 'paused-recoverable') abandon();
    output.summary(ending);
    if (vmKey && ending.outcome !== 'aborted') sayHowToGetBack(output, images, keyPath, lease);
    return exitCodeOf(ending, false);
  } finally {
    if (ending === null && ejection?.committed) abandon();
    for (const { image } of vms) await image.close();
    // Nothing was parked: the key opens nothing.
    if (vmKey && (ending === null || ending.outcome === 'aborted')) rmSync(keyPath, { force: true });
    control?.close(ending);
  }
}

/** What no single option can check. @throws {AbdmError} USAGE. */
function checkFlags({ to, park, direct, intermediates, lease, vmKey }: EjectFlags): void {
  const wrong = (text: string) => new AbdmError('USAGE', text);
  if (!to === !park) throw wrong('say where to: --to HOST:PORT, or --park to leave now and be taken in later');
  if (!park && (lease ?? vmKey) !== undefined) throw wrong('--lease and --vm-key are for --park');
  if (direct && park) throw wrong('--direct needs a destination: it cannot go with --park');
  if (direct && intermediates) throw wrong('--direct goes without nodes: it cannot go with --intermediates');
}

function tooLate(names: readonly string[]): string {
  return `${names.join(', ')}: past the exit: somebody else may have the VM already, so it cannot be cancelled any more`;
}

function sayWhoStaysStopped(output: Output, specs: readonly ImageSpec[]): void {
  for (const { name, scheme, place } of specs) {
    if (scheme !== 'process') continue;
    output.notice(
      `process ${place} stays stopped: ${name} may run elsewhere, or be taken in from the nodes; only if you know that it is not: kill -CONT ${place}`,
    );
  }
}

function sayHowToGetBack(output: Output, images: readonly string[], keyPath: string, leaseMs: number): void {
  const targets = images.map((image) => image.replace(/=.*/s, '=file:PATH')).join(' ');
  output.say('');
  output.say(
    `The nodes keep this for ${formatMs(leaseMs)} (abdm renew lengthens it). Take it in, anywhere in the cluster:`,
  );
  output.say(`  abdm merge ${targets} --parked --vm-key ${keyPath}`);
  output.say(
    `WITHOUT THE KEY ${keyPath} NOBODY CAN GET IT BACK. Copy it to where it will be needed, and keep it secret.`,
  );
}
