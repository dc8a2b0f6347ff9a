#!/usr/bin/env node
// The `abdm` command: arguments and exit codes. What it does is in the roles; how it shows it, in output.ts.

import './tiers.js';
import { existsSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { Command, CommanderError, type Option } from 'commander';
import { asAbdmError } from '../../bindings/errors.js';
import { ASKS } from '../guest/protocol.js';
import { MAX_OPERATIONS_PER_S, MAX_SEED, MAX_VCPUS, PATTERNS } from '../guest/workload.js';
import { MAX_PRIORITY, MAX_ROUNDS } from '../source/options.js';
import { MODES } from '../summary.js';
import { MAX_REPLICAS } from '../wire/messages.js';
import { DEFAULT_HEAP_BYTES } from './demo/workload.js';
import { EXIT, exitCodeOfError } from './exit.js';
import {
  address,
  count,
  intermediates,
  json,
  option,
  rate,
  rateOrOff,
  secured,
  share,
  store,
  vmKey,
  weights,
} from './options.js';
import { Output } from './output.js';
import { type ClusterFlags, openSecurity } from './security.js';
import { parseDuration, parseShortTime, parseSize } from './sizes.js';

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const program = new Command('abdm')
  .description('Gets the memory of virtual machines out of a host as fast as its network card allows.')
  .version(version)
  .showHelpAfterError('(see abdm --help)')
  .exitOverride()
  .addHelpText(
    'after',
    `
Every option is also a variable: --listen is ABDM_LISTEN.
Exit codes: 0 completed, 1 usage, 2 aborted and the source still owns the VM, 3 paused-recoverable, 4 data lost or unverifiable.
Of several VMs the worst counts: 2 or 3 although others completed.

Example, on five hosts that have the file cluster.key (made with abdm keygen cluster.key, and copied):
  all$    export ABDM_KEY=cluster.key
  inter1$ abdm intermediate --listen 10.0.0.1:7000 --memory 16G        (likewise inter2, inter3)
  dest$   abdm merge vm1=file:/images/vm1 --listen 10.0.0.9:7000
  source$ abdm eject vm1=process:4711 --to 10.0.0.9:7000 --replicas 2`,
  );

/** A command with its options, and examples under its help. */
function command(name: string, description: string, options: readonly Option[], examples: string): Command {
  const made = program.command(name).description(description);
  for (const one of options) made.addOption(one);
  return made.addHelpText('after', `\nExamples:\n${examples.replaceAll(/^/gm, '  ')}`);
}

command(
  'intermediate',
  'keep frames for others, until they are fetched and dropped',
  [
    option('--listen <host:port>', 'where to listen; port 0 for any free one', address(0)).makeOptionMandatory(),
    option('--memory <size>', 'the most to keep, such as 16G', parseSize).makeOptionMandatory(),
    option('--announce <host:port>', 'where others reach it, if that is not where it listens', address(1)),
    ...secured(),
    json('what happens here'),
  ],
  `abdm intermediate --listen 10.0.0.1:7000 --memory 16G --key cluster.key
abdm intermediate --listen 10.0.0.1:7000 --memory 16G --key cluster.key --announcements 10.0.0.9:7077,10.0.0.10:7077`,
).action(run(async () => (await import('./intermediate.js')).intermediate));

command(
  'eject',
  'move images away from this host',
  [
    option('--to <host:port>', 'where abdm merge listens', address(1)),
    option('--park', 'leave now, without a destination: the nodes keep all of it until abdm merge --parked'),
    option('--lease <time>', 'how long the nodes keep what is parked: 90s, 15m, 2h, 1d (default: 1d)', parseDuration),
    vmKey('with --park: the file that the key of the parked VMs is written to (default: NAME.vmkey)'),
    intermediates(),
    store(),
    option('--direct', 'send straight to the destination, without intermediates'),
    option(
      '--mode <mode>',
      'how guests leave: stop first; pre-copy while they run here; post-copy while they run there; hybrid, one and then the other; auto, pre-copy that becomes hybrid if it does not converge (default: auto; what is no guest stops)',
    ).choices(MODES),
    option(
      '--max-downtime <time>',
      'with auto and pre-copy: stop a guest when the rest takes no longer: 50ms, 2s (default: 300ms)',
      parseShortTime,
    ),
    option(
      '--rounds <n>',
      'with auto and pre-copy: the most (default: 30); with hybrid: how many (default: 1)',
      count(1, MAX_ROUNDS),
    ),
    option(
      '--priority <name=weight,...>',
      'shares of the link, of those that leave together (default: 1 each)',
      weights(MAX_PRIORITY),
    ),
    option('--replicas <n>', 'nodes that keep each frame', count(1, MAX_REPLICAS)).default(1),
    option('--compress <how>', 'how pages travel; high is smaller and slower, for links below 75 MB/s')
      .choices(['none', 'lz4', 'high'])
      .default('lz4'),
    rate(),
    ...secured(),
    json(),
  ],
  `abdm eject vm1=process:4711 --to 10.0.0.9:7000 --key cluster.key --replicas 2
abdm eject vm1=file:/images/vm1 vm2=file:/images/vm2 --to 10.0.0.9:7000 --intermediates 10.0.0.1:7000,10.0.0.2:7000 --key cluster.key
abdm eject web=qemu:/run/web.qmp --to 10.0.0.9:7000 --mode post-copy --key cluster.key
abdm eject vm1=guest:/run/vm1.sock vm2=guest:/run/vm2.sock --to 10.0.0.9:7000 --key cluster.key --max-downtime 50ms --priority vm1=3
abdm eject vm1=file:/images/vm1 --park --lease 2d --vm-key /safe/vm1.vmkey --replicas 2 --key cluster.key`,
)
  .argument(
    '<name=image...>',
    'what to move: NAME=file:PATH, NAME=process:PID (stopped meanwhile, continued afterwards), or a guest, which runs meanwhile: NAME=qemu:QMP_SOCKET, NAME=guest:SOCKET',
  )
  .action(run(async () => (await import('./eject.js')).eject));

command(
  'merge',
  'take images in: listens for one abdm eject, or takes in what was parked; ends when all is merged and verified',
  [
    option('--listen <host:port>', 'where to listen; port 0 for any free one', address(0)),
    option('--parked', 'take in what left with abdm eject --park'),
    vmKey('with --parked: the key that abdm eject --park wrote (default: NAME.vmkey)'),
    intermediates('with --parked: nodes to ask (default: those that announce themselves)'),
    store('stores to ask with --parked; and how we are let in where the source keeps frames'),
    rate(),
    ...secured(),
    json(),
  ],
  `abdm merge vm1=file:/images/vm1 --listen 10.0.0.9:7000 --key cluster.key
abdm merge web=qemu:/run/web-dst.qmp --listen 10.0.0.9:7000 --key cluster.key
abdm merge vm1=file:/images/vm1 --parked --vm-key vm1.vmkey --key cluster.key`,
)
  .argument(
    '<name=image...>',
    'where they go, by the names that the source gives them: NAME=file:PATH, NAME=qemu:QMP_SOCKET of one that waits with -incoming defer, NAME=guest:SOCKET',
  )
  .action(run(async () => (await import('./merge.js')).merge));

command(
  'nodes',
  'show the intermediates that announce themselves, and their room',
  [option('--watch', 'live, until it is interrupted'), ...secured(), json('one a node')],
  `abdm nodes --key cluster.key
abdm nodes --watch --announcements 10.0.0.9:7077`,
).action(
  run(async () => {
    const { nodes } = await import('./nodes.js');
    return (output, flags: ClusterFlags & { watch?: boolean; json?: boolean }) =>
      nodes(output, { ...flags, security: openSecurity(output, flags) });
  }),
);

command(
  'status',
  'show every role that runs on this host: how far, how fast, over which nodes',
  [option('--watch', 'again and again, until it is interrupted'), json('one a role')],
  `abdm status
abdm status vm1 --watch`,
)
  .argument('[name]', 'only this VM, or the intermediate at this HOST:PORT')
  .action(run(async () => (await import('./status.js')).status));

command(
  'cancel',
  'end a migration that runs on this host, and wait until it is over: the VM stays where it was',
  [option('--reason <text>', 'for the other end and the summaries'), json('how it ended')],
  `abdm cancel vm1
abdm cancel vm1 --reason "wrong destination"`,
)
  .argument('<name>', 'one of its VMs')
  .action(run(async () => (await import('./steer.js')).cancel));

command(
  'rate',
  'change the limit on page data of a migration that runs on this host',
  [
    option('--role <role>', 'which, where both ends are on this host').choices(['eject', 'merge']),
    json('the new limit'),
  ],
  `abdm rate vm1 50MB
abdm rate vm1 off --role merge`,
)
  .argument('<name>', 'one of its VMs')
  .argument('<bytes/s>', 'such as 50MB; off: no limit', rateOrOff)
  .action(run(async () => (await import('./steer.js')).changeRate));

command(
  'renew',
  'lengthen the lease of parked VMs at every node that has something of them',
  [
    option('--lease <time>', 'from now on: 90s, 15m, 2h, 1d', parseDuration).makeOptionMandatory(),
    intermediates('nodes to ask (default: those that announce themselves)'),
    store('stores to ask'),
    ...secured(),
    json('when it ends'),
  ],
  `abdm renew vm1 --lease 2h --key cluster.key`,
)
  .argument('<name>', 'one of the VMs that were parked together')
  .action(run(async () => (await import('./renew.js')).renew));

command(
  'keygen',
  'make a key for a cluster: whoever has it may announce, keep, fetch and drop',
  [json('the key, or where it is')],
  `abdm keygen cluster.key
abdm keygen > cluster.key        (then see to its mode: 600)`,
)
  .argument('[file]', 'where to; it must not exist (default: stdout)')
  .action(run(async () => (await import('./keys.js')).keygen));

command(
  'guest',
  'run a model of a VM, which checks every page that it touches; abdm eject and abdm merge move it as guest:SOCKET',
  [
    option('--socket <path>', 'where it is steered, and asked').makeOptionMandatory(),
    option('--memory <size>', 'its memory, such as 1G: it runs at once', parseSize),
    option('--incoming', 'wait for abdm merge to bring a guest'),
    option('--ask <what>', 'ask a guest that is there; verify reads all its memory').choices(ASKS),
    option('--working-set <size>', 'what its operations touch (default: all its memory)', parseSize),
    option('--pattern <name>', 'how they choose pages').choices(PATTERNS).default('uniform'),
    option('--ops <n>', 'operations a second; 0: none', count(0, MAX_OPERATIONS_PER_S)).default(1000),
    option('--writes <share>', 'of them that write, from 0 to 1', share).default(0.2),
    option(
      '--vcpus <n>',
      'streams of operations, each of which may wait for a page alone',
      count(1, MAX_VCPUS),
    ).default(4),
    option('--content <what>', 'of its memory: random, zero, or a file').default('random'),
    option('--common <share>', 'of its pages that every guest has that says this, from 0 to 1', share).default(0),
    option('--seed <n>', 'two guests with the same one are the same', count(0, MAX_SEED)).default(1),
    option('--backing <directory>', 'where its memory is a file').default(
      existsSync('/dev/shm') ? '/dev/shm' : tmpdir(),
    ),
    json(),
  ],
  `abdm guest --socket /run/vm1.sock --memory 1G --pattern zipf --working-set 512M --ops 20000 --writes 0.1
abdm guest --socket /run/vm1-here.sock --incoming        (then abdm merge vm1=guest:/run/vm1-here.sock ...)
abdm guest --socket /run/vm1-here.sock --ask verify`,
).action(run(async () => (await import('./guest.js')).guest));

command(
  'demo',
  'show it: the memory of a process leaves directly, then through three intermediates, towards a slow destination',
  [
    option('--image <image>', 'move this instead: file:PATH or process:PID'),
    option('--size <size>', 'data that its process is filled with, beside what Node itself takes', parseSize).default(
      DEFAULT_HEAP_BYTES,
      '288M',
    ),
    option('--rate <bytes/s>', 'what the destination takes in at most', parseSize).default(50e6, '50MB'),
    option('--rounds <n>', 'migrations of each kind', count(1, 100)).default(3),
    json(),
  ],
  `abdm demo --rounds 1`,
).action(run(async () => (await import('./demo/demo.js')).demo));

/** Wraps a command, which is loaded when it runs: its exit code becomes the process's, its errors a line on stderr. */
function run<T extends unknown[]>(load: () => Promise<(output: Output, ...args: T) => Promise<number>>) {
  return async (...args: unknown[]) => {
    // commander's last argument is the command; the one before it its options.
    const given = args.slice(0, -1);
    const output = new Output((given.at(-1) as { json?: boolean }).json === true);
    try {
      const command = await load();
      process.exitCode = await command(output, ...(given as T));
    } catch (error) {
      output.stopLive();
      output.error(asAbdmError(error));
      process.exitCode = exitCodeOfError(error);
    }
  };
}

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? EXIT.completed : EXIT.usage;
  // People have been told already.
  if (error.exitCode !== 0 && process.argv.includes('--json')) {
    new Output(true).event({ type: 'error', code: 'USAGE', message: error.message } as { type: string });
  }
}
