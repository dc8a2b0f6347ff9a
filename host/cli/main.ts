#!/usr/bin/env node
// The `abdm` command: arguments and exit codes. What it does is in the roles; how it shows it, in output.ts.

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { asAbdmError } from '../../bindings/errors.js';
import { parseAddress } from '../wire/address.js';
import { demo } from './demo/demo.js';
import { DEFAULT_HEAP_BYTES } from './demo/workload.js';
import { EXIT, exitCodeOfError } from './exit.js';
import { Output } from './output.js';
import { eject, intermediate, merge } from './roles.js';
import { parseSize } from './sizes.js';

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const address = (minPort: 0 | 1) => (text: string) => {
  try {
    parseAddress(text, minPort);
    return text;
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
};

const addresses = (text: string) => text.split(',').map(address(1));

const count = (least: number, most: number) => (text: string) => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new InvalidArgumentError(`write a whole number from ${least} to ${most}.`);
};

/** An option that is also a variable: --listen is ABDM_LISTEN. */
function option(flags: string, description: string, parse?: (text: string) => unknown): Option {
  const made = new Option(flags, description).env(
    `ABDM_${/--([a-z-]+)/.exec(flags)![1]!.toUpperCase().replaceAll('-', '_')}`,
  );
  return parse ? made.argParser(parse) : made;
}

const json = () => option('--json', 'print one JSON object a line on stdout, the last being the summary');
const rate = () => option('--rate <bytes/s>', 'limit on page data, such as 50MB', parseSize);

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

Example, on five hosts:
  inter1$ abdm intermediate --listen 10.0.0.1:7000 --memory 16G        (likewise inter2, inter3)
  dest$   abdm merge vm1=file:/images/vm1 --listen 10.0.0.9:7000
  source$ abdm eject vm1=process:4711 --to 10.0.0.9:7000 --intermediates 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000`,
  );

program
  .command('intermediate')
  .description('keep frames for others, until they are fetched and dropped')
  .addOption(
    option('--listen <host:port>', 'where to listen; port 0 for any free one', address(0)).makeOptionMandatory(),
  )
  .addOption(option('--memory <size>', 'the most to keep, such as 16G', parseSize).makeOptionMandatory())
  .addOption(option('--announce <host:port>', 'where others reach it, if that is not where it listens', address(1)))
  .addOption(json())
  .action(run(intermediate));

program
  .command('eject')
  .description('move images away from this host')
  .argument(
    '<name=image...>',
    'what to move: NAME=file:PATH or NAME=process:PID (stopped meanwhile, continued afterwards)',
  )
  .addOption(option('--to <host:port>', 'where abdm merge listens', address(1)).makeOptionMandatory())
  .addOption(option('--intermediates <host:port,...>', 'nodes that keep the frames until they are merged', addresses))
  .addOption(option('--direct', 'send straight to the destination, without intermediates'))
  .addOption(
    option('--compress <how>', 'how pages travel; high is smaller and slower, for links below 75 MB/s')
      .choices(['none', 'lz4', 'high'])
      .default('lz4'),
  )
  .addOption(rate())
  .addOption(json())
  .action(run(eject));

program
  .command('merge')
  .description('take images in: listens for one abdm eject, and ends when all is merged and verified')
  .argument('<name=image...>', 'where they go, by the names that the source gives them: NAME=file:PATH')
  .addOption(
    option('--listen <host:port>', 'where to listen; port 0 for any free one', address(0)).makeOptionMandatory(),
  )
  .addOption(rate())
  .addOption(json())
  .action(run(merge));

program
  .command('demo')
  .description(
    'show it: the memory of a process leaves directly, then through three intermediates, towards a slow destination',
  )
  .addOption(option('--image <image>', 'move this instead: file:PATH or process:PID'))
  .addOption(
    option('--size <size>', 'data that its process is filled with, beside what Node itself takes', parseSize).default(
      DEFAULT_HEAP_BYTES,
      '288M',
    ),
  )
  .addOption(option('--rate <bytes/s>', 'what the destination takes in at most', parseSize).default(50e6, '50MB'))
  .addOption(option('--rounds <n>', 'migrations of each kind', count(1, 100)).default(3))
  .addOption(json())
  .action(run(demo));

/** Wraps a command: its exit code becomes the process's, its errors a line on stderr. */
function run<T extends unknown[]>(command: (output: Output, ...args: T) => Promise<number>) {
  return async (...args: unknown[]) => {
    // commander's last argument is the command; the one before it its options.
    const given = args.slice(0, -1);
    const output = new Output((given.at(-1) as { json?: boolean }).json === true);
    try {
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
}
