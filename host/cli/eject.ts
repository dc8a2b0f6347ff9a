// abdm eject: from options to an Ejection, and from what it says to an exit code.

import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Compression } from '../../bindings/divider.js';
import { compileEngine } from '../../bindings/engine.js';
import { AbdmError } from '../../bindings/errors.js';
import type { ImageSource } from '../image/image.js';
import { howToGoOn, type ImageSpec, isGuestSpec, openSource } from '../image/parse.js';
import { Ejection } from '../source/source.js';
// With it stores can be named.
import '../store/index.js';
import type { Mode, Summary, VmStatus } from '../summary.js';
import { openControl } from './control.js';
import { EXIT, exitCodeOf, onSignal } from './exit.js';
import { defaultVmKey, parseImages } from './images.js';
import { createKeyFile } from './keys.js';
import type { Output } from './output.js';
import { Meter } from './progress.js';
import { type ClusterFlags, namedKeepers, openSecurity } from './security.js';
import { formatMs } from './sizes.js';

export interface EjectFlags extends ClusterFlags {
  readonly park?: boolean;
  readonly lease?: number;
  readonly vmKey?: string;
  readonly direct?: boolean;
  readonly replicas: number;
  readonly compress: Compression;
  readonly rate?: number;
  readonly mode?: Mode;
  readonly maxDowntime?: number;
  readonly rounds?: number;
  readonly priority?: ReadonlyMap<string, number>;
}

const PARKED_MS = 24 * 3_600_000;

export async function eject(output: Output, images: string[], flags: EjectFlags): Promise<number> {
  const { to, park = false, lease = PARKED_MS, direct = false, replicas, compress, rate, announcements } = flags;
  const { mode, maxDowntime, rounds, priority } = flags;
  checkFlags(flags);
  const specs = parseImages(images);
  checkGuests(specs, flags);
  const security = openSecurity(output, flags);
  const names = specs.map(({ name }) => name);
  const keyPath = resolve(flags.vmKey ?? defaultVmKey(names));
  const vmKey = park ? createKeyFile(keyPath) : null;
  if (vmKey) output.event({ type: 'vm-key', path: keyPath } as { type: string });

  const vms: { name: string; image: ImageSource; priority: number }[] = [];
  let control: Awaited<ReturnType<typeof openControl>> | undefined;
  let ending: Summary | null = null;
  // A signal before the migration has begun: whatever process was stopped goes on when this one ends.
  let cancel = (signal: string): void => {
    output.error(new AbdmError('CANCELLED', `cancelled by ${signal}`));
    process.exit(EXIT.aborted);
  };
  let ejection: Ejection | undefined;
  // Others may run some of the VMs, or not: here those do not go on, since two must never run.
  const abandon = () => {
    for (const [vm, { image }] of vms.entries()) if (ejection?.isInDoubt(vm)) image.abandon?.();
    sayWhoStaysStopped(output, specs, (vm) => ejection!.isInDoubt(vm));
  };
  onSignal(
    (signal) => cancel(signal),
    () => {
      sayWhoWasStopped(output, specs, ejection?.status().vms ?? []);
      if (!ejection?.committed) return EXIT.aborted;
      abandon();
      return EXIT.recoverable;
    },
  );
  try {
    // While images are opened.
    void compileEngine();
    for (const spec of specs) {
      vms.push({ name: spec.name, image: await openSource(spec), priority: priority?.get(spec.name) ?? 1 });
    }
    const leaving = new Ejection({
      vms,
      intermediates: direct ? [] : (namedKeepers(flags) ?? 'announced'),
      direct,
      replicas,
      compress,
      security,
      ...(to !== undefined && { to }),
      ...(vmKey && { park: { leaseMs: lease }, vmKey }),
      ...(announcements && { announcements }),
      ...(rate !== undefined && { rateBytesPerS: rate }),
      ...(mode !== undefined && { mode }),
      ...(maxDowntime !== undefined && { maxDowntimeMs: maxDowntime }),
      ...(rounds !== undefined && { rounds }),
      onNotice: (notice) => output.vmNotice(notice),
    });
    ejection = leaving;
    const stay = (reason: string) => {
      const staying = leaving.cancel(reason);
      const gone = names.filter((name) => !staying.includes(name));
      if (staying.length > 0 && gone.length > 0)
        output.notice(`${staying.join(', ')}: cancelled; ${gone.join(', ')}: given away before that, so it goes on`);
      return staying;
    };
    cancel = (signal) => {
      if (stay(`cancelled by ${signal}`).length === 0) output.notice(tooLate(names));
    };
    const meter = new Meter(() => leaving.status());
    control = await openControl(output, {
      role: 'eject',
      names,
      status: () => meter.read(),
      cancel: (reason) => {
        if (stay(reason).length === 0) throw new AbdmError('USAGE', tooLate(names));
      },
      setRate: (bytesPerS) => leaving.setRate(bytesPerS),
    });
    output.live('eject', meter);
    ending = await leaving.run();
    if (ending.outcome === 'paused-recoverable') abandon();
    output.summary(ending);
    const parked = images.filter((_, vm) => ending!.vms[vm]!.outcome !== 'aborted');
    if (vmKey && parked.length > 0) sayHowToGetBack(output, parked, keyPath, flags.store ?? [], lease);
    return exitCodeOf(ending, false);
  } finally {
    if (ending === null && ejection?.committed) abandon();
    for (const { image } of vms) await image.close();
    // Nothing was parked: the key opens nothing.
    if (vmKey && (ending?.vms ?? []).every(({ outcome }) => outcome === 'aborted')) rmSync(keyPath, { force: true });
    control?.close(ending);
  }
}

/** What no single option can check. @throws {AbdmError} USAGE. */
function checkFlags({ to, park, direct, intermediates, store, lease, vmKey }: EjectFlags): void {
  const wrong = (text: string) => new AbdmError('USAGE', text);
  if (!to === !park) throw wrong('say where to: --to HOST:PORT, or --park to leave now and be taken in later');
  if (!park && (lease ?? vmKey) !== undefined) throw wrong('--lease and --vm-key are for --park');
  if (direct && park) throw wrong('--direct needs a destination: it cannot go with --park');
  if (direct && store) throw wrong('--direct goes without stores: it cannot go with --store');
  if (direct && intermediates) throw wrong('--direct goes without nodes: it cannot go with --intermediates');
}

/** What of the options is for guests only, and by name. @throws {AbdmError} USAGE. */
function checkGuests(specs: readonly ImageSpec[], { mode, maxDowntime, rounds, priority }: EjectFlags): void {
  const wrong = (text: string) => new AbdmError('USAGE', text);
  for (const name of priority?.keys() ?? []) {
    if (!specs.some((spec) => spec.name === name)) throw wrong(`--priority names ${name}, which does not leave`);
  }
  const still = specs.find((spec) => !isGuestSpec(spec));
  if (still && mode !== undefined && mode !== 'auto' && mode !== 'stop') {
    throw wrong(`${still.name} is no guest: it stands still while it leaves, and --mode ${mode} is for guests`);
  }
  if (specs.some(isGuestSpec)) return;
  if ((maxDowntime ?? rounds) !== undefined) throw wrong('--max-downtime and --rounds are for guests: none leaves');
}

function tooLate(names: readonly string[]): string {
  return `${names.join(', ')}: past the exit: somebody else may have the VM already, so it cannot be cancelled any more`;
}

function sayWhoStaysStopped(output: Output, specs: readonly ImageSpec[], isInDoubt: (vm: number) => boolean): void {
  for (const [vm, spec] of specs.entries()) {
    const { name, scheme, place } = spec;
    const how = howToGoOn(spec);
    if (how === null || !isInDoubt(vm)) continue;
    output.notice(
      `${scheme} ${place} stays stopped: ${name} may run elsewhere, or be taken in from the nodes; only if you know that it is not: ${how}`,
    );
  }
}

/** Guests that were stopped when this process was told to end at once: nobody else can run them. */
function sayWhoWasStopped(output: Output, specs: readonly ImageSpec[], vms: readonly VmStatus[]): void {
  for (const [vm, { state }] of vms.entries()) {
    const spec = specs[vm]!;
    const { name, scheme, place } = spec;
    if (!isGuestSpec(spec) || !['stopped', 'offered', 'accepted'].includes(state)) continue;
    output.notice(`${scheme} ${place} is left as it is, stopped: ${name} runs nowhere else: ${howToGoOn(spec)}`);
  }
}

function sayHowToGetBack(
  output: Output,
  images: readonly string[],
  keyPath: string,
  stores: readonly string[],
  leaseMs: number,
): void {
  const target = (image: string) => {
    const [, guest] = /=(guest|qemu):/.exec(image) ?? [];
    return image.replace(/=.*/s, guest ? `=${guest}:SOCKET` : '=file:PATH');
  };
  const targets = images.map(target).join(' ');
  output.say('');
  output.say(
    `The nodes keep this for ${formatMs(leaseMs)} (abdm renew lengthens it). Take it in, anywhere in the cluster:`,
  );
  const where = stores.map((address) => ` --store ${address}`).join('');
  output.say(`  abdm merge ${targets} --parked --vm-key ${keyPath}${where}`);
  output.say(
    `WITHOUT THE KEY ${keyPath} NOBODY CAN GET IT BACK. Copy it to where it will be needed, and keep it secret.`,
  );
}
