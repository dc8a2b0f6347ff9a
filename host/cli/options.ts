// What several commands take, and how it is read.

import { InvalidArgumentError, Option } from 'commander';
import { DEFAULT_PLACES } from '../mam/places.js';
import { parseStore } from '../store/address.js';
import { parseAddress } from '../wire/address.js';
import { parseSize } from './sizes.js';

/** An option that is also a variable: --listen is ABDM_LISTEN. */
export function option(
  flags: string,
  description: string,
  parse?: (text: string, before?: unknown) => unknown,
): Option {
  const made = new Option(flags, description).env(
    `ABDM_${/--([a-z-]+)/.exec(flags)![1]!.toUpperCase().replaceAll('-', '_')}`,
  );
  return parse ? made.argParser((text, before) => parse(text, before)) : made;
}

/** HOST:PORT. */
export const address = (minPort: 0 | 1) => (text: string) => {
  try {
    parseAddress(text, minPort);
    return text;
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
};

const addresses = (text: string) => text.split(',').map(address(1));

/** A whole number in [least, most]. */
export const count = (least: number, most: number) => (text: string) => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new InvalidArgumentError(`write a whole number from ${least} to ${most}.`);
};

/** A number in [0, 1]. */
export const share = (text: string) => {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError('write a number from 0 to 1, such as 0.2.');
};

/** A rate, or null for `off`. */
export const rateOrOff = (text: string) => (text === 'off' ? null : parseSize(text));

/** `a=2,b=1`: weights by name. */
export const weights = (most: number) => (text: string) => {
  const given = new Map<string, number>();
  for (const item of text.split(',')) {
    const [, name, weight] = /^([^=]+)=(\d+(?:\.\d+)?)$/.exec(item) ?? [];
    if (name === undefined || !(Number(weight) > 0 && Number(weight) <= most)) {
      throw new InvalidArgumentError(`write NAME=WEIGHT,..., each weight above 0, and ${most} at most.`);
    }
    if (given.has(name)) throw new InvalidArgumentError(`${name} stands there twice.`);
    given.set(name, Number(weight));
  }
  return given;
};

export const json = (what = 'the last being the summary') =>
  option('--json', `print one JSON object a line on stdout, ${what}`);
export const rate = () =>
  option('--rate <bytes/s>', 'limit on page data, such as 50MB (abdm rate changes it)', parseSize);
export const intermediates = (what = 'nodes that keep the frames (default: those that announce themselves)') =>
  option('--intermediates <host:port,...>', what, addresses);
/** Addresses of stores, which come beside the nodes that are named. */
export const store = (
  what = 'stores that keep the frames too, or alone: valkey://HOST, rediss://USER:PASSWORD@HOST, memcached://A,B',
) =>
  option('--store <url>', what, (text, before) => {
    try {
      return [...((before as string[] | undefined) ?? []), ...parseStore(text)];
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  });
export const vmKey = (what: string) => option('--vm-key <file>', what);

/** What secures connections, and where announcements go and come from. */
export const secured = () => [
  option('--key <file>', 'the key of the cluster (abdm keygen); without it everything stays on loopback'),
  option('--tls-cert <file>', 'certificate of this host instead (PEM), with --tls-key and --tls-ca'),
  option('--tls-key <file>', 'its key'),
  option('--tls-ca <file>', 'whom the others are signed by'),
  option(
    '--announcements <host:port,...>',
    `multicast groups and peers that announcements go through; or none (default: ${DEFAULT_PLACES})`,
    (text) => (text === 'none' ? [] : addresses(text)),
  ),
];
