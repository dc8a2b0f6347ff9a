// Every error of the library and of the harness is an AbdmError with a code: a program branches on the code, a person reads the message.

/** What went wrong, by name. New codes may be added. */
export type AbdmErrorCode =
  /** A frame is cut short, or a length or a count in it is impossible. */
  | 'FRAME_MALFORMED'
  /** A frame's checksum does not match its bytes: damaged on the way. */
  | 'FRAME_CHECKSUM'
  /** A frame's tag does not match: made or changed by somebody without the migration's key. */
  | 'FRAME_TAG'
  /** A page does not have the content that its frame's table names. */
  | 'CONTENT_MISMATCH'
  /** A page number, VM or frame id lies outside what this migration said it would send. */
  | 'OUT_OF_RANGE'
  /** A slot was used after its release, or released twice. */
  | 'SLOT_STATE'
  /** No slot is free. */
  | 'NO_SLOT'
  /** An argument or option is wrong. */
  | 'USAGE'
  /** A peer cannot be reached, or does not answer in time. */
  | 'PEER_UNREACHABLE'
  /** A peer did not prove that it is one of us, or we did not prove it to the peer: no key, another key, a certificate that is not believed. */
  | 'UNAUTHENTICATED'
  /** A connection ended before its work was done. */
  | 'PEER_GONE'
  /** A peer sent something that the protocol does not allow. */
  | 'PROTOCOL'
  /** No intermediate has room. */
  | 'NO_ROOM'
  /** A frame that was acknowledged cannot be had from any node. */
  | 'FRAME_LOST'
  /** An image cannot be opened, read or written. */
  | 'IMAGE'
  /** Somebody else is merging this VM. */
  | 'CLAIMED'
  /** The operator, or a signal, ended it. */
  | 'CANCELLED'
  /** The peer ended it and said why. */
  | 'PEER_ABORTED'
  /** A mistake of abdm's own: please report it. */
  | 'INTERNAL';

/** What every function here throws. `code` is for programs, `message` for people: it says what, where and what to do. */
export class AbdmError extends Error {
  override readonly name = 'AbdmError';
  readonly code: AbdmErrorCode;

  constructor(code: AbdmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** `cause` itself if it is coded; otherwise an INTERNAL error around it. */
export function asAbdmError(cause: unknown): AbdmError {
  if (cause instanceof AbdmError) return cause;
  return new AbdmError('INTERNAL', cause instanceof Error ? cause.message : String(cause), { cause });
}

// What the engine says of a frame (assembly/frame.ts), by number.
const FRAME_ERRORS: readonly (readonly [AbdmErrorCode, string])[] = [
  ['FRAME_MALFORMED', ''],
  ['FRAME_MALFORMED', 'its length is not what its header says'],
  ['FRAME_MALFORMED', 'its header is not one of a frame'],
  ['FRAME_CHECKSUM', 'its checksum does not match: it was damaged on the way'],
  ['FRAME_MALFORMED', 'its page table contradicts itself'],
  ['FRAME_TAG', "its tag does not match: it was not made with this migration's key"],
  ['OUT_OF_RANGE', 'its pages lie outside the images of this migration'],
  ['FRAME_MALFORMED', 'a page in it does not decode'],
  ['CONTENT_MISMATCH', 'a page in it does not have the content that its content id names'],
];

/** The error behind a number that the engine returned for a frame; `what` names the frame. */
export function frameError(number: number, what: string): AbdmError {
  const [code, reason] = FRAME_ERRORS[number] ?? (['FRAME_MALFORMED', `it is refused (${number})`] as const);
  return new AbdmError(code, `${what}: ${reason}`);
}
