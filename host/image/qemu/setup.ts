// What the destination of a QEMU guest has to know before the first page, besides the regions: what the stream begins with (ImageSource.setup). JSON:
//
//   { "machine": "pc-i440fx-7.2", "targetPageBits": 12 | null, "uuid": "32 hex digits" | null, "version": "7.2.17",
//     "hostPageBytes": { "pc.ram": 2097152 } }                   of the blocks that have other pages than those of 4 KiB
//
// Regions are RAM blocks, in the order of their numbers.

import { PAGE_BYTES } from '../../../bindings/abi.js';
import { AbdmError } from '../../../bindings/errors.js';
import { type Configuration, MAX_BLOCKS, type RamBlock } from '../../qemu/format.js';
import { decodeJson, type JsonObject, need } from '../../wire/json.js';
import { imageError, type Region } from '../image.js';

export const MAX_SETUP_CHARS = 4096;
/** The largest pages that hosts have, and more. */
const MAX_HOST_PAGE_BYTES = 2 ** 40;
const PAGE_BITS = 12;
const WHAT = 'the setup of a QEMU guest';
const NAME = /^[\x20-\x7e]{1,255}$/;

export interface Setup {
  readonly configuration: Configuration;
  /** Of the QEMU that the guest comes from. */
  readonly version: string;
  readonly blocks: readonly RamBlock[];
}

/** @throws {AbdmError} IMAGE if that is more than fits. */
export function encodeSetup({ configuration: { machine, targetPageBits, uuid }, version, blocks }: Setup): string {
  const huge = blocks.filter(({ hostPageBytes }) => hostPageBytes !== PAGE_BYTES);
  const text = JSON.stringify({
    ...{ machine, targetPageBits, version },
    uuid: uuid && Buffer.from(uuid).toString('hex'),
    hostPageBytes: Object.fromEntries(huge.map(({ name, hostPageBytes }) => [name, hostPageBytes])),
  });
  if (text.length <= MAX_SETUP_CHARS) return text;
  throw imageError(
    `this guest has too many memory devices with huge pages: ${huge.length}`,
    'give it fewer, larger ones',
  );
}

/** @throws {AbdmError} PROTOCOL unless `text` and `regions` are what a guest can have. */
export function decodeSetup(text: string | undefined, regions: readonly Pick<Region, 'name' | 'bytes'>[]): Setup {
  if (text === undefined) throw bad('there is none: is it the guest of a QEMU?');
  const setup = decodeJson(Buffer.from(text), WHAT, MAX_SETUP_CHARS);
  const configuration: Configuration = {
    machine: name(need.string(setup, 'machine', WHAT), 'the machine'),
    targetPageBits:
      setup.targetPageBits === null ? null : need.integer(setup, 'targetPageBits', WHAT, PAGE_BITS, PAGE_BITS),
    uuid: setup.uuid === null ? null : uuidOf(need.string(setup, 'uuid', WHAT)),
  };
  const version = name(need.string(setup, 'version', WHAT, 64), 'the version');
  return { configuration, version, blocks: blocksOf(need.object(setup, 'hostPageBytes', WHAT), regions) };
}

function blocksOf(sizes: JsonObject, regions: readonly Pick<Region, 'name' | 'bytes'>[]): RamBlock[] {
  if (regions.length === 0 || regions.length > MAX_BLOCKS) throw bad(`there are ${regions.length} RAM blocks`);
  const names = new Set(regions.map((region) => name(region.name, 'a RAM block')));
  if (names.size !== regions.length) throw bad('two RAM blocks have the same name');
  for (const other of Object.keys(sizes)) if (!names.has(other)) throw bad('pages of a RAM block that is not there');
  return regions.map(({ name, bytes }) => {
    const hostPageBytes = Object.hasOwn(sizes, name)
      ? need.integer(sizes, name, WHAT, PAGE_BYTES * 2, MAX_HOST_PAGE_BYTES)
      : PAGE_BYTES;
    if (!Number.isInteger(Math.log2(hostPageBytes)) || !(bytes > 0) || bytes % hostPageBytes !== 0) {
      throw bad(`RAM block ${name} has ${bytes} bytes in pages of ${hostPageBytes}`);
    }
    return { name, bytes, hostPageBytes };
  });
}

function name(text: string, what: string): string {
  if (!NAME.test(text)) throw bad(`the name of ${what} is none`);
  return text;
}

function uuidOf(hex: string): Uint8Array {
  if (!/^[0-9a-f]{32}$/.test(hex)) throw bad('the UUID is none');
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
