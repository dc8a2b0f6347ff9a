// Reads a migration back from the nodes alone, as whoever has its key can: the manifest, the records, then each frame from its holders, in order.
import { Merger, PAGE_BYTES } from 'abdm';
import {
  decodeManifest,
  decodeState,
  MANIFEST_ID,
  manifestParts,
  RECORDS_ID,
  readRecords,
  STATE_ID,
  stateIds,
} from '#abdm/host/mam/catalog.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Opener } from '#abdm/host/mam/seal.js';
import { migrationSecret } from '#abdm/host/mam/secret.js';
import { MAX_FRAME_BYTES } from '#abdm/host/wire/messages.js';
import { MemorySink } from '../../bindings/library.js';

export interface Read {
  images: Uint8Array[];
  /** Execution states, by VM; empty if there is none. */
  states: Uint8Array[];
  names: string[];
  replicas: number;
  /** By frame: how many of the nodes have it in truth, and as many as the records say. */
  copies: Map<number, { kept: number; recorded: number }>;
  /** Frames of which no node has the bytes: they went straight to the destination. */
  direct: number[];
}

/** @param addresses the nodes that are still there. */
export async function readBack(addresses: readonly string[], name: string, vmKey: Uint8Array): Promise<Read> {
  const found = (await MamNode.lookup(addresses[0]!, name))[0]!;
  if (!found?.complete) throw new Error(`${name} is not complete at ${addresses[0]}`);
  const nodes = await Promise.all(
    addresses.map((address) => MamNode.connect(address, { migration: found.migration, role: 'destination' })),
  );
  const key = migrationSecret(vmKey, found.migration);
  const opener = await Opener.create(key);
  const into = new Uint8Array(MAX_FRAME_BYTES);
  const kept = new Map<number, MamNode[]>();
  for (const node of nodes) {
    for (let ids = await node.list(0); ids.length > 0; ids = await node.list(ids.at(-1)! + 1)) {
      for (const id of ids) kept.set(id, [...(kept.get(id) ?? []), node]);
    }
  }
  const body = async (id: number) => {
    const bytes = await kept.get(id)![0]!.get(id, into);
    return into.slice(0, opener.open(id, into.subarray(0, bytes)));
  };
  const first = await body(MANIFEST_ID);
  const parts = [first];
  for (let i = 1; i < manifestParts(first); i++) parts.push(await body(MANIFEST_ID + i));
  const manifest = decodeManifest(parts);

  const records = new Map<number, string[]>();
  const voided = new Set<number>();
  for (const id of [...kept.keys()].filter((id) => id >= RECORDS_ID).sort((a, b) => a - b)) {
    if (id >= STATE_ID) continue;
    readRecords(await body(id), manifest.vms, ({ frameId, state }, holders) => {
      if (state === 'void') voided.add(frameId);
      records.set(
        frameId,
        holders.map((holder) => holder.id),
      );
    });
  }
  if (records.size !== found.frames) throw new Error(`${records.size} frames are recorded, there are ${found.frames}`);
  const merger = await Merger.create({ key, vms: manifest.vms });
  const sink = new MemorySink(manifest.vms.map(({ pages }) => pages));
  const copies: Read['copies'] = new Map();
  const direct: number[] = [];
  const merge = async (id: number) => {
    const node = nodes.find((one) => records.get(id)!.includes(one.id) && kept.get(id)?.includes(one));
    if (!node) throw new Error(`frame ${id} is at none of ${records.get(id)}`);
    const slot = merger.acquire();
    const bytes = await node.get(id, into);
    const plain = manifest.sealed ? opener.open(id, into.subarray(0, bytes)) : bytes;
    slot.bytes.set(into.subarray(0, plain));
    merger.merge(slot, plain, sink);
    slot.release();
  };
  for (const [id, holders] of records) {
    if (voided.has(id)) continue;
    if (holders.length === 0) {
      direct.push(id);
      continue;
    }
    copies.set(id, { kept: kept.get(id)?.length ?? 0, recorded: holders.length });
    await merge(id);
  }
  while (merger.wanted.size > 0) for (const id of [...merger.wanted]) await merge(id);
  if (!merger.complete && direct.length === 0) throw new Error('some pages are in no frame');
  const states: Uint8Array[] = [];
  for (const vm of manifest.vms.keys()) {
    const ids = [...kept.keys()].filter((id) => id >= stateIds(vm)[0] && id < stateIds(vm)[1]).sort((a, b) => a - b);
    const parts: Uint8Array[] = [];
    for (const id of ids) parts.push(await body(id));
    states.push(parts.length > 0 ? decodeState(parts) : new Uint8Array(0));
  }
  for (const node of nodes) node.end();
  const images = sink.images.map((image, vm) => image.subarray(0, manifest.vms[vm]!.pages * PAGE_BYTES));
  return { images, states, names: manifest.vms.map((vm) => vm.name), replicas: manifest.replicas, copies, direct };
}
