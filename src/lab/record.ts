/** The record of a lab: what was asked for and what exists of it, written before it is made. */
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { messageOf, WeftError } from '../base/errors.ts';
import { type LabPaths, labPaths, NETNS, RUN, STATE } from './paths.ts';
import type { LabSpec } from './topology.ts';

export interface LabRecord {
  version: 1;
  spec: LabSpec;
  /** Nodes that exist or are being made. */
  nodes: string[];
  /** Where the API server listens on 127.0.0.1 of the host. */
  hostPort: number;
  createdAt: string;
}

/** Undefined when there is none. @throws WEFT_BAD_CONFIG when it is damaged */
export function readRecord(paths: LabPaths): LabRecord | undefined {
  let text: string;
  try {
    text = readFileSync(paths.record, 'utf8');
  } catch {
    return undefined;
  }
  try {
    const record = JSON.parse(text) as LabRecord;
    if (record.version !== 1 || !Array.isArray(record.nodes) || !record.spec?.name)
      throw new Error('fields are missing');
    return record;
  } catch (error) {
    throw new WeftError('WEFT_BAD_CONFIG', `the record ${paths.record} is damaged: ${messageOf(error)}`, {
      hint: `Remove the lab with \`weft down --lab ${paths.lab}\` and make it anew.`,
    });
  }
}

/** @throws WEFT_LAB_NOT_FOUND */
export function mustReadRecord(paths: LabPaths): LabRecord {
  const record = readRecord(paths);
  if (!record) throw new WeftError('WEFT_LAB_NOT_FOUND', `there is no lab ${paths.lab} on this machine`);
  return record;
}

export function writeRecord(paths: LabPaths, record: LabRecord): void {
  mkdirSync(paths.state, { recursive: true, mode: 0o700 });
  writeFileSync(`${paths.record}.new`, JSON.stringify(record, undefined, 2), { mode: 0o600 });
  renameSync(`${paths.record}.new`, paths.record);
}

/** Every lab that left any trace on this machine: a folder or a network namespace. */
export function listLabs(): string[] {
  const list = (folder: string): string[] => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  };
  const fromNetns = list(NETNS).flatMap(
    (name) => /^weft-([a-z][a-z0-9]{0,15})-(?:net|outside|node-\d+|pod-[0-9a-f]{8})$/.exec(name)?.[1] ?? [],
  );
  return [...new Set([...list(STATE), ...list(RUN), ...fromNetns])].filter(isLabName).sort();
}

function isLabName(name: string): boolean {
  try {
    labPaths(name);
    return true;
  } catch {
    return false;
  }
}
