/**
 * The OpenAPI v2 document in the protobuf form that kubectl before 1.27 asks for, from which it validates and explains.
 *
 * Source: google/gnostic openapiv2/OpenAPIv2.proto (field numbers); protobuf's encoding guide.
 */
type Json = Record<string, unknown>;

/** Field numbers of gnostic's messages. */
const DOCUMENT = { swagger: 1, info: 2, paths: 8, definitions: 9 };
/** Of paths, only what kubectl looks at: which kinds' PATCH takes dryRun. */
const PATHS = { path: 2 };
const PATH_ITEM = { patch: 8 };
const OPERATION = { parameters: 8, responses: 9, vendorExtension: 13 };
const QUERY_PARAMETER = { in: 2, name: 4, type: 6 };
const INFO = { title: 1, version: 2 };
const SCHEMA = {
  ref: 1,
  format: 2,
  description: 4,
  default: 5,
  required: 19,
  enum: 20,
  additionalProperties: 21,
  type: 22,
  items: 23,
  properties: 25,
  vendorExtension: 31,
};

const LENGTH_DELIMITED = 2;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

function bytesField(number: number, body: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + LENGTH_DELIMITED), varint(body.length), body]);
}

const textField = (number: number, text: string): Buffer => bytesField(number, Buffer.from(text));

/** NamedX { name = 1, value = 2 }, which is how gnostic writes maps. */
const namedField = (number: number, name: string, value: Buffer): Buffer =>
  bytesField(number, Buffer.concat([textField(1, name), bytesField(2, value)]));

/** Any { yaml = 2 }: JSON is YAML. */
const anyValue = (value: unknown): Buffer => textField(2, `${JSON.stringify(value)}\n`);

export function encodeOpenApiV2(document: Json): Buffer {
  const info = document.info as { title: string; version: string };
  const definitions = Object.entries(document.definitions as Record<string, Json>).map(([name, schema]) =>
    namedField(1, name, encodeSchema(schema)),
  );
  return Buffer.concat([
    textField(DOCUMENT.swagger, '2.0'),
    bytesField(
      DOCUMENT.info,
      Buffer.concat([textField(INFO.title, info.title), textField(INFO.version, info.version)]),
    ),
    bytesField(DOCUMENT.paths, Buffer.concat(encodePaths(document.paths as Record<string, Json>))),
    bytesField(DOCUMENT.definitions, Buffer.concat(definitions)),
  ]);
}

function encodePaths(paths: Record<string, Json>): Buffer[] {
  return Object.entries(paths)
    .filter(([, item]) => item.patch)
    .map(([path, item]) =>
      namedField(PATHS.path, path, bytesField(PATH_ITEM.patch, encodeOperation(item.patch as Json))),
    );
}

function encodeOperation(operation: Json): Buffer {
  const parameters = (operation.parameters as Json[]).map((parameter) => {
    const query = Buffer.concat([
      textField(QUERY_PARAMETER.in, 'query'),
      textField(QUERY_PARAMETER.name, String(parameter.name)),
      textField(QUERY_PARAMETER.type, String(parameter.type)),
    ]);
    // ParametersItem.parameter = 1, Parameter.non_body_parameter = 2, NonBodyParameter.query_parameter_sub_schema = 3.
    return bytesField(OPERATION.parameters, bytesField(1, bytesField(2, bytesField(3, query))));
  });
  const gvk = 'x-kubernetes-group-version-kind';
  return Buffer.concat([
    ...parameters,
    bytesField(OPERATION.responses, Buffer.alloc(0)),
    namedField(OPERATION.vendorExtension, gvk, anyValue(operation[gvk])),
  ]);
}

function encodeSchema(schema: Json): Buffer {
  const parts: Buffer[] = [];
  for (const [key, value] of Object.entries(schema)) {
    if (key === '$ref') parts.push(textField(SCHEMA.ref, String(value)));
    else if (key === 'format' || key === 'description') parts.push(textField(SCHEMA[key], String(value)));
    else if (key === 'default') parts.push(bytesField(SCHEMA.default, anyValue(value)));
    else if (key === 'type') parts.push(bytesField(SCHEMA.type, textField(1, String(value))));
    else if (key === 'required')
      for (const name of value as string[]) parts.push(textField(SCHEMA.required, name));
    else if (key === 'enum')
      for (const item of value as unknown[]) parts.push(bytesField(SCHEMA.enum, anyValue(item)));
    else if (key === 'items')
      parts.push(bytesField(SCHEMA.items, bytesField(1, encodeSchema(value as Json))));
    else if (key === 'additionalProperties')
      parts.push(bytesField(SCHEMA.additionalProperties, bytesField(1, encodeSchema(value as Json))));
    else if (key === 'properties') {
      const properties = Object.entries(value as Record<string, Json>);
      parts.push(
        bytesField(
          SCHEMA.properties,
          Buffer.concat(properties.map(([name, property]) => namedField(1, name, encodeSchema(property)))),
        ),
      );
    } else if (key.startsWith('x-')) parts.push(namedField(SCHEMA.vendorExtension, key, anyValue(value)));
  }
  return Buffer.concat(parts);
}
