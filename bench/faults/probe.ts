// What a node says of itself to anybody who connects: whether it keeps anything, without asking its own process.
import { AbdmError } from '#abdm/bindings/errors.js';
import { connect } from '#abdm/host/wire/connect.js';
import { decodeJson, encodeJson, need } from '#abdm/host/wire/json.js';
import { MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import type { Security } from '#abdm/host/wire/security.js';

/** A migration that nobody has. */
const NOBODY = 'f'.repeat(32);

/** Bytes that are taken at a node. @throws {AbdmError} if it does not answer. */
export async function keptBytes(address: string, security?: Security): Promise<number> {
  const options = { timeoutMs: 2000, ...(security && { security }) };
  return new Promise((resolve, reject) => {
    const onClose = (error: AbdmError | null) => reject(error ?? new AbdmError('PEER_GONE', `${address} said nothing`));
    connect(
      address,
      {
        onMessage: (_header, body, channel) => {
          const welcome = decodeJson(body, 'WELCOME');
          resolve(need.integer(welcome, 'memoryBytes', 'WELCOME') - need.integer(welcome, 'freeBytes', 'WELCOME'));
          channel.end();
        },
        onClose,
      },
      options,
    ).then(
      (channel) =>
        channel.send(
          MessageType.HELLO,
          0,
          encodeJson({ protocol: PROTOCOL_VERSION, role: 'destination', migration: NOBODY }),
        ),
      reject,
    );
  });
}
