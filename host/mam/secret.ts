// What is made of a VM's key for one migration. The key lasts as long as its owner likes; but under one secret no two blocks may be sealed with the same
// nonce, and ids begin anew with each migration, so each has a secret of its own.

import { KEY_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { deriveKey } from '../wire/security.js';

/**
 * The secret of one migration, 32 bytes: HKDF-SHA256 of the VM's key.
 * @param migration 32 hexadecimal digits.
 * @throws {AbdmError} USAGE if the key is not 32 bytes long.
 */
export function migrationSecret(vmKey: Uint8Array, migration: string): Uint8Array {
  if (vmKey.byteLength === KEY_BYTES) return deriveKey(vmKey, `abdm migration ${migration}`);
  throw new AbdmError('USAGE', `a VM's key has ${vmKey.byteLength} bytes: it needs ${KEY_BYTES}`);
}
