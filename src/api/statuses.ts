/**
 * Refusals as Kubernetes words them, because clients match on reason, code and causes.
 *
 * Source: API conventions, "Response Status Kind"; apimachinery's metav1.StatusReason.
 */
import type { FieldProblem } from './decode.ts';
import { ApiError } from './errors.ts';
import type { Status } from './types.ts';

/** What a refusal speaks about: `pods "a"`. */
export interface Subject {
  group: string;
  /** Plural in most messages; the Kind in Invalid. */
  plural: string;
  kind: string;
}

type Details = NonNullable<Status['details']>;

function refuse(code: number, reason: string, message: string, details?: Details): ApiError {
  return new ApiError({
    apiVersion: 'v1',
    kind: 'Status',
    metadata: {},
    status: 'Failure',
    message,
    reason,
    ...(details && { details }),
    code,
  });
}

const qualified = (s: Subject): string => (s.group ? `${s.plural}.${s.group}` : s.plural);
const about = (s: Subject, name?: string): Details => ({
  ...(name && { name }),
  ...(s.group && { group: s.group }),
  kind: s.plural,
});

export const badRequest = (message: string): ApiError => refuse(400, 'BadRequest', message);
export const unauthorized = (): ApiError => refuse(401, 'Unauthorized', 'Unauthorized');
export const notFound = (s: Subject, name: string): ApiError =>
  refuse(404, 'NotFound', `${qualified(s)} "${name}" not found`, about(s, name));
export const noSuchPath = (): ApiError =>
  refuse(404, 'NotFound', 'the server could not find the requested resource', {});
export const alreadyExists = (s: Subject, name: string): ApiError =>
  refuse(409, 'AlreadyExists', `${qualified(s)} "${name}" already exists`, about(s, name));
export const conflict = (s: Subject, name: string, why: string): ApiError =>
  refuse(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(s)} "${name}": ${why}`,
    about(s, name),
  );
export const staleObject = (s: Subject, name: string): ApiError =>
  conflict(
    s,
    name,
    'the object has been modified; please apply your changes to the latest version and try again',
  );
export const forbiddenRequest = (message: string, s?: Subject, name?: string): ApiError =>
  refuse(403, 'Forbidden', message, s && about(s, name));
export const methodNotAllowed = (): ApiError =>
  refuse(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource', {});
export const notAcceptable = (types: string): ApiError =>
  refuse(406, 'NotAcceptable', `only the following media types are accepted: ${types}`, {});
export const unsupportedMediaType = (types: string): ApiError =>
  refuse(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${types}`,
    {},
  );
/** The revision asked for is forgotten: list again. */
export const expired = (message: string): ApiError => refuse(410, 'Expired', message);
export const tooLarge = (limit: number): ApiError =>
  refuse(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${limit}`, {});
export const tooManyRequests = (message: string): ApiError =>
  refuse(429, 'TooManyRequests', message, { retryAfterSeconds: 1 });
export const internal = (message: string): ApiError =>
  refuse(500, 'InternalError', `Internal error occurred: ${message}`, { causes: [{ message }] });
export const unavailable = (message: string): ApiError =>
  refuse(503, 'ServiceUnavailable', message, { retryAfterSeconds: 1 });
export const futureRevision = (asked: number, current: number): ApiError =>
  refuse(504, 'Timeout', `Too large resource version: ${asked}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  });
export const nameGenerationFailed = (s: Subject, name: string): ApiError =>
  refuse(
    409,
    'AlreadyExists',
    `${qualified(s)} "${name}" already exists, the server was not able to generate a unique name for the object`,
    {
      ...about(s, name),
      retryAfterSeconds: 1,
    },
  );

export function invalidObject(s: Subject, name: string, problems: readonly FieldProblem[]): ApiError {
  const lines = problems.map((p) => `${p.field}: ${p.message}`);
  const text = lines.length === 1 ? lines[0] : `[${lines.join(', ')}]`;
  const kind = s.group ? `${s.kind}.${s.group}` : s.kind;
  return refuse(422, 'Invalid', `${kind} "${name}" is invalid: ${text}`, {
    ...(name && { name }),
    ...(s.group && { group: s.group }),
    kind: s.kind,
    causes: problems.map(({ reason, message, field }) => ({ reason, message, field })),
  });
}

/** The answer to a deletion that is complete. */
export const deleted = (s: Subject, name: string, uid: string | undefined): Status => ({
  apiVersion: 'v1',
  kind: 'Status',
  metadata: {},
  status: 'Success',
  details: { ...about(s, name), ...(uid && { uid }) } as Details,
});
