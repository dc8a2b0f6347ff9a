// The harness `abdm/host`: the roles as the `abdm` command runs them, for programs of your own, and the parts they are made of. Node only. What
// is not exported here may change without notice.

// The roles. Destination takes a migration in: `start`, then wait for `done`. Ejection sends images away: create, then `run` once. An
// intermediate keeps frames for others.

export { Destination, type DestinationOptions } from './destination/destination.js';
export {
  type Intermediate,
  type IntermediateEvent,
  type IntermediateOptions,
  type IntermediateStatus,
  startIntermediate,
} from './intermediate/intermediate.js';
export { Ejection, type EjectOptions } from './source/source.js';

// What roles are given and what they say: while they work (Status, events) and when they are done (Summary).

export type { AnnouncedVm } from './destination/announcement.js';
export type { ImageTarget } from './destination/images.js';
export type { FrameCheck } from './intermediate/frames.js';
export type { MigrationEvent, Role } from './intermediate/migration.js';
export type { Candidate } from './intermediate/restore.js';
export type { Happening, SessionEvent } from './intermediate/session.js';
export type { GivingState } from './ownership/giving.js';
export type { FaultLatency, Mode, Notice, Status, Summary, VmStatus, VmSummary } from './summary.js';
export { MODES } from './summary.js';

// Images: where memory comes from and goes to. ImageSource and ImageSink are the interfaces to implement for a memory of your own, GuestSource and
// GuestSink those for one that somebody runs on. A FileSink appears under its name when it is whole; a ProcessSource stops its process (Linux).

export { FileSource } from './image/file.js';
export { FileSink, type LeftOver } from './image/filesink.js';
export { hashImage } from './image/hash.js';
export {
  type GuestSink,
  type GuestSource,
  type ImageShape,
  type ImageSink,
  type ImageSource,
  isGuestSink,
  isGuestSource,
  isSending,
  type PageListener,
  type Region,
  type RunningGuest,
  type SendingGuest,
  type TrackedGuest,
} from './image/image.js';
export { type ImageSpec, openSource, parseImage, sinkOpener } from './image/parse.js';
export { openProcess, type ProcessOptions, ProcessSource } from './image/process.js';

// The device of a VM: its memory at the nodes, written and read by offset; which node holds what is hidden. For tools of your own, where Ejection and
// Destination do not fit.

export { DeviceReader } from './mam/device-reader.js';
export { type DeviceOptions, DeviceWriter, type DeviceWriterOptions } from './mam/device-writer.js';

// The nodes that keep frames, seen by their client. MamNode is one of them. Implement FrameKeeper to keep frames elsewhere, and add a driver for it. NodeIndex
// knows which nodes there are, from what they announce.

export type { Claimed, FoundMigration, Registration } from './mam/bodies.js';
export type { VmShape } from './mam/catalog.js';
export { addDriver, type Driver, dial, lookUpAt } from './mam/dial.js';
export { type AnnouncementCounts, NodeIndex, type NodeIndexOptions, type NodeInfo } from './mam/index.js';
export {
  type ClaimOptions,
  type FrameKeeper,
  type Gone,
  isSurelyGone,
  type KeeperOptions,
  type NodeRef,
  type PutOptions,
  type PutResult,
} from './mam/keeper.js';
export { MamNode } from './mam/node.js';

// Stores that people already run keep frames too (docs/stores.md): an engine for another one, the keeper that stands on it, and the checks that every
// FrameKeeper has to pass.

export { type Check, CONFORMANCE, type Conforming } from './store/conformance.js';
export {
  type Added,
  type Engine,
  type EngineOptions,
  lookUpName,
  parseStore,
  type ReadTarget,
  StoreKeeper,
} from './store/index.js';

// The wire: messages over TCP whose bodies are never copied (docs/protocol.md).

export { type Address, formatAddress, parseAddress } from './wire/address.js';
export {
  type BodyTarget,
  Channel,
  type ChannelHandler,
  type ChannelOptions,
  type Opening,
  type OpenSocket,
} from './wire/channel.js';
export { type ConnectOptions, connect } from './wire/connect.js';
export { type Accept, Listener, type ListenOptions, listen } from './wire/listen.js';
export { type MessageHeader, MessageType, PROTOCOL_VERSION } from './wire/messages.js';

export type { Proofs, Prover } from './wire/proof.js';

// Who may speak to whom (docs/security.md): given to every role, and to `connect` and `listen`.

export {
  generateKey,
  isSecured,
  type LoadedSecurity,
  loadSecurity,
  OPEN,
  type Security,
  type SecurityFiles,
} from './wire/security.js';
export type { Ticket, Tickets, UsedTicket } from './wire/tickets.js';

// From the library: an engine's memory, and what every failure is.

export type { EngineMemory } from '../bindings/engine.js';
export { AbdmError, type AbdmErrorCode } from '../bindings/errors.js';
