// Accepted sockets that read straight into memory of our choice.
//
// net.Socket does that if it is constructed with `onread`, but a server constructs its sockets itself and offers no way to pass it. So the
// TCP handle is moved into a socket of our own; Node does the same when it hands a socket to a child process. On Node 20, 22 and 24 a receiver
// then takes 0.14 CPU s/GiB where 'data' events and a copy take 0.30 to 0.40; a whole intermediate that takes frames in, first-touch
// page faults and all, 0.87 instead of 1.36. `_handle` is not a public name, so where it does not look as expected the
// accepted socket is used as it is, by 'data' events: slower, never wrong.

import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';

interface Handle {
  readStart?: unknown;
  useUserBuffer?: unknown;
}

/**
 * Moves the connection of `accepted` into a new socket that reads by `onread`, and destroys the empty shell: to its server it is a closed
 * connection. Nothing may lie in its buffer, or it is lost: the server must have been made with `pauseOnConnect`, and what was read since must
 * have been taken out.
 * @returns null, and `accepted` is untouched, if this is not possible here.
 */
export function takeOver(accepted: Socket, onread: OnReadOpts): Socket | null {
  const shell = accepted as unknown as { _handle?: Handle | null };
  const handle = shell._handle;
  if (!handle || typeof handle.useUserBuffer !== 'function' || typeof handle.readStart !== 'function') return null;
  if (accepted.readableLength !== 0 || accepted.destroyed) return null;
  shell._handle = null;
  accepted.destroy();
  return new Socket({ handle, onread } as SocketConstructorOpts);
}
