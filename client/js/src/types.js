/**
 * What is used of the platform, by shape: where the DOM's types, or Node's,
 * are there, they are meant; where they aren't, nothing is missing.
 *
 * @typedef {typeof globalThis extends { AbortSignal: { prototype: infer T } } ? T : any} Signal
 * @typedef {typeof globalThis extends { URL: { prototype: infer T } } ? string | T : string} Address
 * @typedef {typeof globalThis extends { Response: { prototype: infer T } } ? T : any} Answer
 * @typedef {{toString(): string}} Query
 * @typedef {any} Timer as setTimeout makes it
 * @typedef {{get(name: string): string | null}} HeadersLike
 * @typedef {{status: number, headers: HeadersLike, body?: any, json(): Promise<any>}} ResponseLike
 * @typedef {(url: string, init?: any) => Promise<ResponseLike>} FetchLike
 */
export {};
