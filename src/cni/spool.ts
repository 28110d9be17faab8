/**
 * DELs that found no agent: files that the plugin left (cni/weft-cni.c), each a frame as it would have been sent. The
 * agent carries them out at start and before every ADD.
 */
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { messageOf } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { decodeRequest, FRAME_HEADER, MAX_ENVIRONMENT, MAX_STDIN } from './frame.ts';
import { attachmentRef, networkNameOf } from './parse-request.ts';
import type { AttachmentRef } from './types.ts';

/** What a kept DEL says; the network only if its configuration could be read. */
export interface SpooledDel extends AttachmentRef {
  network?: string;
}

/** Writing takes a plugin a few milliseconds. */
const ABANDONED_MS = 5000;
const MAX_REQUEST = FRAME_HEADER + MAX_ENVIRONMENT + MAX_STDIN;

export class Spool {
  readonly #folder: string;
  readonly #log: Logger;
  #draining: Promise<void> | undefined;

  constructor(folder: string, logger: Logger = silentLogger) {
    this.#folder = folder;
    this.#log = logger;
  }

  /**
   * Carry out everything that is there when called. A request is forgotten once `del` has resolved; one that fails stays
   * for the next time. Resolves with the failures: an ADD must not overtake a DEL of the same attachment.
   */
  async drain(del: (request: SpooledDel) => Promise<void>): Promise<Array<SpooledDel & { error: unknown }>> {
    // Who is draining may have listed the folder before the newest file came: wait, then look again.
    while (this.#draining) await this.#draining;
    const names = this.#list();
    if (names.length === 0) return [];
    const failed: Array<SpooledDel & { error: unknown }> = [];
    this.#draining = this.#drain(names, del, failed).finally(() => {
      this.#draining = undefined;
    });
    await this.#draining;
    return failed;
  }

  #list(): string[] {
    try {
      // Hidden ones are being written; those set aside end in `.bad`. Names sort by time.
      const names = readdirSync(this.#folder);
      for (const name of names) if (name.startsWith('.')) this.#removeAbandoned(name);
      return names.filter((name) => !name.startsWith('.') && !name.endsWith('.bad')).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      return [];
    }
  }

  /** Of a plugin that was killed while it wrote: it never answered, so the runtime asks again. */
  #removeAbandoned(name: string): void {
    const file = path.join(this.#folder, name);
    const found = lstatSync(file, { throwIfNoEntry: false });
    if (found?.isFile() && Date.now() - found.mtimeMs > ABANDONED_MS) rmSync(file, { force: true });
  }

  async #drain(
    names: string[],
    del: (request: SpooledDel) => Promise<void>,
    failed: Array<SpooledDel & { error: unknown }>,
  ): Promise<void> {
    for (const name of names) {
      const file = path.join(this.#folder, name);
      const request = this.#read(file);
      if (!request) continue;
      try {
        await del(request);
        rmSync(file, { force: true });
        this.#log.info(request, 'a DEL that was kept for the agent is done');
      } catch (error) {
        failed.push({ ...request, error });
        this.#log.error({ ...request, error: messageOf(error) }, 'a DEL that was kept for the agent failed');
      }
    }
  }

  #read(file: string): SpooledDel | undefined {
    try {
      // Opening a FIFO would wait for ever, and a device may have no end.
      const found = lstatSync(file);
      if (!found.isFile()) throw new Error('it is not a regular file');
      if (found.size > MAX_REQUEST) throw new Error(`it has ${found.size} bytes`);
      const { env, stdin } = decodeRequest(readFileSync(file));
      const network = networkNameOf(stdin);
      return { ...attachmentRef(env), ...(network !== undefined && { network }) };
    } catch (error) {
      this.#log.warn({ file, error: messageOf(error) }, 'a kept CNI request cannot be read; set aside');
      this.#setAside(file);
      return undefined;
    }
  }
  #setAside(file: string): void {
    try {
      renameSync(file, `${file}.bad`);
    } catch (error) {
      // It stays, and is looked at again: better than no ADD at all.
      this.#log.error({ file, error: messageOf(error) }, 'a kept CNI request cannot be set aside');
    }
  }
}
