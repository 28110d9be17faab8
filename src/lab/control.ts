/**
 * How the commands speak to the daemon of a lab: one JSON object per line over a unix socket, a request and its answer per
 * connection. Before the answer may come lines of progress.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { type ErrorCode, isWeftError, messageOf, WeftError } from '../base/errors.ts';

export type Request = { op: string } & Record<string, unknown>;
export type Progress = (text: string) => void;
export type Handler = (request: Request, progress: Progress) => Promise<unknown>;

type Answer =
  | { progress: string }
  | { result: unknown }
  | { error: { code: ErrorCode; message: string; hint?: string; details?: Record<string, unknown> } };

const MAX_REQUEST = 65_536;

/** Listen on the socket; whoever held its path before is gone (the daemon's lock says so). */
export async function serveControl(socketPath: string, handler: Handler): Promise<Server> {
  mkdirSync(path.dirname(socketPath), { recursive: true, mode: 0o700 });
  rmSync(socketPath, { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    const send = (answer: Answer): void => {
      if (!socket.destroyed) socket.write(`${JSON.stringify(answer)}\n`);
    };
    let text = '';
    const onData = (chunk: Buffer): void => {
      text += chunk.toString('utf8');
      const end = text.indexOf('\n');
      if (end < 0) {
        if (text.length > MAX_REQUEST) socket.destroy();
        return;
      }
      socket.off('data', onData);
      Promise.resolve()
        .then(() => handler(JSON.parse(text.slice(0, end)) as Request, (progress) => send({ progress })))
        .then((result) => send({ result: result ?? null }))
        .catch((error) =>
          send({
            error: isWeftError(error) ? error.toJSON() : { code: 'WEFT_INTERNAL', message: messageOf(error) },
          }),
        )
        .finally(() => socket.end());
    };
    socket.on('data', onData);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, () => resolve());
  });
  chmodSync(socketPath, 0o600);
  return server;
}

/** @throws WEFT_LAB_DAEMON_FAILED when nobody answers, or what the daemon answers */
export function callDaemon<T>(socketPath: string, request: Request, progress?: Progress): Promise<T> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    const failed = (why: string, cause?: unknown): void =>
      reject(new WeftError('WEFT_LAB_DAEMON_FAILED', `the lab's daemon ${why}`, { cause }));
    socket.once('error', (error) => failed(`cannot be reached at ${socketPath}: ${error.message}`, error));
    socket.once('close', () => failed('ended before it answered'));
    createInterface({ input: socket })
      .on('line', (line) => {
        const answer = JSON.parse(line) as Answer;
        if ('progress' in answer) progress?.(answer.progress);
        else if ('error' in answer) reject(WeftError.fromJSON(answer.error));
        else resolve(answer.result as T);
      })
      .on('error', () => {}); // the socket's own error tells
    socket.write(`${JSON.stringify(request)}\n`);
  });
}
