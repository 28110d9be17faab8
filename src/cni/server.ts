/**
 * The unix socket that the plugin speaks to. Requests go in parallel; what must be ordered, the backend orders.
 *
 * The socket appears at its path by a rename, so a stale one left by kill -9 is replaced in one step, and a plugin finds
 * either nobody or somebody who answers.
 */
import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import { messageOf, WeftError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import type { CniBackend } from './backend.ts';
import { CNI_CODE, CniError } from './errors.ts';
import { ACCEPTED, decodeRequest, encodeAnswer, frameLength } from './frame.ts';
import { failed, handleCni } from './handle.ts';
import type { CniAnswer } from './types.ts';

export interface CniServerOptions {
  /** Path of the socket: at most 107 bytes. Its folder is made if absent. */
  path: string;
  backend: CniBackend;
  logger?: Logger;
  /** Requests under way beyond which a further one is told to come again. Default 1000. */
  maxRequests?: number;
  /** Milliseconds that a client has for its request. Default 5000. */
  receiveTimeout?: number;
  /** Called with each answer, for metrics; `code` is CNI's, 0 for success. */
  onAnswer?: (answer: { command: string; code: number; seconds: number }) => void;
}

/**
 * A file beside the socket that is there while pods are attached: without an agent, the plugin answers STATUS by it with 51
 * instead of 50 (cni/weft-cni.c, pods_are_attached). In /run on purpose: no pod outlives a reboot.
 */
export function attachedMarker(socketPath: string): string {
  return `${socketPath}.attached`;
}

export class CniServer implements AsyncDisposable {
  readonly #options: Required<Omit<CniServerOptions, 'onAnswer'>> & Pick<CniServerOptions, 'onAnswer'>;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #underWay = new Set<Promise<void>>();
  #inode: bigint | undefined;

  constructor(options: CniServerOptions) {
    this.#options = { logger: silentLogger, maxRequests: 1000, receiveTimeout: 5000, ...options };
    this.#server = net.createServer((socket) => this.#accept(socket));
  }

  /** @throws WEFT_CNI_SOCKET_IN_USE when another agent answers there, WEFT_BAD_CONFIG when the path cannot be used */
  async listen(): Promise<void> {
    const { path } = this.#options;
    if (Buffer.byteLength(path) > 107)
      throw new WeftError('WEFT_BAD_CONFIG', `the socket path ${path} is longer than 107 bytes`);
    if (await answers(path)) {
      throw new WeftError('WEFT_CNI_SOCKET_IN_USE', `another agent answers on ${path}`, {
        details: { path },
      });
    }
    const own = `${dirname(path)}/.${process.pid}.sock`;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      rmSync(own, { force: true });
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen({ path: own, backlog: 512 }, () => resolve());
      });
      chmodSync(own, 0o600);
      renameSync(own, path);
      this.#inode = lstatSync(path, { bigint: true }).ino;
    } catch (error) {
      this.#server.close();
      throw new WeftError('WEFT_BAD_CONFIG', `cannot listen on ${path}: ${messageOf(error)}`, {
        cause: error,
        details: { path },
      });
    }
    this.#server.on('error', (error) => this.#options.logger.error({ error: error.message }, 'CNI socket'));
  }

  /** Requests that are being carried out. */
  get underWay(): number {
    return this.#underWay.size;
  }

  #accept(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy()); // the client is gone: nobody to tell
    if (this.#underWay.size >= this.#options.maxRequests) {
      this.#answer(socket, Buffer.concat([ACCEPTED, encodeAnswer(busy())]));
      return;
    }
    socket.write(ACCEPTED);
    const timer = setTimeout(() => socket.destroy(), this.#options.receiveTimeout);
    const chunks: Buffer[] = [];
    let received = 0;
    let expected: number | undefined;
    socket.once('close', () => clearTimeout(timer));
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      received += chunk.length;
      try {
        expected ??= frameLength(chunks.length === 1 ? chunk : Buffer.concat(chunks));
      } catch (error) {
        clearTimeout(timer);
        this.#answer(socket, encodeAnswer(failed(error)));
        return;
      }
      if (expected === undefined || received < expected) return;
      clearTimeout(timer);
      socket.removeAllListeners('data');
      const work = this.#serve(socket, Buffer.concat(chunks)).finally(() => this.#underWay.delete(work));
      this.#underWay.add(work);
    });
  }

  async #serve(socket: net.Socket, frame: Buffer): Promise<void> {
    const began = performance.now();
    let command = 'unknown';
    let answer: CniAnswer;
    try {
      const invocation = decodeRequest(frame);
      command = invocation.env.CNI_COMMAND ?? 'none';
      answer = await handleCni(invocation, this.#options.backend);
      this.#log(invocation.env, answer, performance.now() - began);
    } catch (error) {
      answer = failed(error);
    }
    this.#answer(socket, encodeAnswer(answer));
    this.#options.onAnswer?.({ command, code: codeOf(answer), seconds: (performance.now() - began) / 1000 });
  }

  #log(env: Readonly<Record<string, string>>, answer: CniAnswer, ms: number): void {
    const { CNI_COMMAND: command, CNI_CONTAINERID: container, CNI_IFNAME: ifname } = env;
    const about = { command, container, ifname, ms: Math.round(ms * 10) / 10 };
    if (answer.exitCode === 0) this.#options.logger.debug(about, 'CNI');
    else this.#options.logger.warn({ ...about, answer: answer.stdout.trimEnd() }, 'CNI request failed');
  }

  #answer(socket: net.Socket, bytes: Buffer): void {
    if (!socket.destroyed) socket.end(bytes);
    socket.removeAllListeners('data');
    socket.resume(); // an unread rest would turn the close into a reset, and the answer would be lost
  }

  /** No new requests; those under way are answered first. */
  async close(): Promise<void> {
    const { path } = this.#options;
    try {
      if (this.#inode !== undefined && lstatSync(path, { bigint: true }).ino === this.#inode) rmSync(path);
    } catch {
      // Somebody else has removed it.
    }
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.allSettled([...this.#underWay]);
    // What has been answered may still have to be written; what has not sent its request yet is told by the close.
    for (const socket of this.#sockets)
      if (socket.writableEnded) socket.destroySoon();
      else socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function busy(): CniAnswer {
  return failed(
    new CniError(CNI_CODE.tryAgainLater, 'the agent has too many requests under way', 'WEFT_CNI_NOT_READY'),
  );
}

function codeOf(answer: CniAnswer): number {
  if (answer.exitCode === 0) return 0;
  const { code } = JSON.parse(answer.stdout) as { code?: number };
  return code ?? answer.exitCode;
}

/** Whether somebody accepts connections there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
