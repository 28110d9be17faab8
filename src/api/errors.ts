/** A Kubernetes API refusal: HTTP code and Status as the server said them. */
import type { Status } from './types.ts';

export class ApiError extends Error {
  readonly code: number;
  readonly status: Status;

  constructor(status: Status) {
    super(status.message ?? status.reason ?? `HTTP ${status.code}`);
    this.name = 'ApiError';
    this.code = status.code ?? 500;
    this.status = status;
  }

  get reason(): string {
    return this.status.reason ?? '';
  }
}

export const isNotFound = (e: unknown): e is ApiError => e instanceof ApiError && e.code === 404;
export const isConflict = (e: unknown): e is ApiError =>
  e instanceof ApiError && e.code === 409 && e.reason === 'Conflict';
export const isAlreadyExists = (e: unknown): e is ApiError =>
  e instanceof ApiError && e.code === 409 && e.reason === 'AlreadyExists';
/** The resourceVersion is older than the server remembers: list again. */
export const isGone = (e: unknown): e is ApiError => e instanceof ApiError && e.code === 410;
