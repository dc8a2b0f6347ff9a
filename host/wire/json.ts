// JSON bodies. The sender may be anybody: a body must be UTF-8 and one plain object, and every field is asked for by name, type and range.
// Fields that nobody asks for are ignored, so that a later version may add some.

import { AbdmError } from '../../bindings/errors.js';

export type JsonObject = { readonly [name: string]: unknown };

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

export function encodeJson(value: object): Uint8Array {
  return encoder.encode(JSON.stringify(value));
}

/**
 * @param what the message's name, for the error.
 * @throws {AbdmError} `PROTOCOL` unless the body is UTF-8 JSON of one plain object, at most `maxBytes` long.
 */
export function decodeJson(body: Uint8Array, what: string, maxBytes = 64 * 1024): JsonObject {
  if (body.byteLength > maxBytes) throw bad(what, `${body.byteLength} bytes, ${maxBytes} are allowed`);
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(body));
  } catch (cause) {
    throw new AbdmError('PROTOCOL', `${what}: the body is not JSON`, { cause });
  }
  return object(value, what, 'the body');
}

/** Asks for fields of a decoded body; each throws `PROTOCOL` with the message's name and the field's. */
export const need = {
  string(from: JsonObject, name: string, what: string, maxChars = 256): string {
    const value = field(from, name);
    if (typeof value !== 'string') throw bad(what, `\`${name}\` is not a string`);
    if (value.length > maxChars) throw bad(what, `\`${name}\` has ${value.length} characters, ${maxChars} are allowed`);
    return value;
  },

  /** A whole number in [min, max]. */
  integer(from: JsonObject, name: string, what: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    const value = field(from, name);
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
      throw bad(what, `\`${name}\` is not a whole number from ${min} to ${max}`);
    }
    return value as number;
  },

  boolean(from: JsonObject, name: string, what: string): boolean {
    const value = field(from, name);
    if (typeof value !== 'boolean') throw bad(what, `\`${name}\` is neither true nor false`);
    return value;
  },

  oneOf<const T extends string>(from: JsonObject, name: string, what: string, allowed: readonly T[]): T {
    const value = field(from, name);
    if (!allowed.includes(value as T)) throw bad(what, `\`${name}\` is none of ${allowed.join(', ')}`);
    return value as T;
  },

  object(from: JsonObject, name: string, what: string): JsonObject {
    return object(field(from, name), what, `\`${name}\``);
  },

  /** A list of at most `maxItems`; each is passed through `each`, which may throw by the same rules. */
  list<T>(from: JsonObject, name: string, what: string, maxItems: number, each: (item: unknown) => T): T[] {
    const value = field(from, name);
    if (!Array.isArray(value)) throw bad(what, `\`${name}\` is not a list`);
    if (value.length > maxItems) throw bad(what, `\`${name}\` has ${value.length} items, ${maxItems} are allowed`);
    return value.map(each);
  },

  /** For items of a list that must be objects. */
  isObject(value: unknown, what: string, name: string): JsonObject {
    return object(value, what, `an item of \`${name}\``);
  },
};

// Own fields only: `constructor` or `toString` of the prototype are not something that a peer said.
function field(from: JsonObject, name: string): unknown {
  return Object.hasOwn(from, name) ? from[name] : undefined;
}

function object(value: unknown, what: string, name: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(what, `${name} is not an object`);
  return value as JsonObject;
}

function bad(what: string, text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${what}: ${text}`);
}

/** Text from a peer, fit for a terminal: no control characters, bounded. */
export function printable(text: string, maxChars = 500): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ');
  return clean.length > maxChars ? `${clean.slice(0, maxChars)}...` : clean;
}
