// The library `abdm`: divider, merger and what they need. No I/O; runs in a browser too.

export {
  BATCH_PAGES,
  FRAME_PAGES,
  KEY_BYTES,
  MAX_FRAME_BYTES,
  MAX_GANG_PAGES,
  MAX_NODES,
  MAX_VMS,
  PAGE_BYTES,
} from './abi.js';
export {
  type Batch,
  type BatchPages,
  type Compression,
  type DividedFrame,
  type DivideOptions,
  Divider,
  type DividerCounts,
  type DividerOptions,
} from './divider.js';
export { compileEngine, type EngineMemory, type EngineModule } from './engine.js';
export { AbdmError, type AbdmErrorCode } from './errors.js';
export { type FramePage, FrameReader, type ReadFrame } from './frame-reader.js';
export { memorySink } from './memory-sink.js';
export {
  type FrameSlot,
  type MergedFrame,
  Merger,
  type MergerCounts,
  type MergerOptions,
  type PageSink,
} from './merger.js';
export type { OnSuperseded, PageMap } from './page-map.js';
export { Placement, type PlacementNode } from './placement.js';
