<?php
/**
 * Looks for what PHP 7.4 does not know in files that a later one takes. Prints each place; status 1.
 *
 *   php syntax.php FOLDER
 */
declare(strict_types=1);

/** Tokens of PHP 8, by name: whoever runs this may not know all of them. */
const WORDS = [
    'T_MATCH', 'T_ENUM', 'T_READONLY', 'T_ATTRIBUTE', 'T_NULLSAFE_OBJECT_OPERATOR',
    'T_PUBLIC_SET', 'T_PROTECTED_SET', 'T_PRIVATE_SET',
];
const FUNCTIONS = [
    'str_contains', 'str_starts_with', 'str_ends_with', 'array_is_list', 'get_debug_type',
    'get_resource_id', 'fdiv', 'fsync', 'json_validate', 'array_find', 'array_any', 'array_all',
    'mb_str_pad', 'mb_trim', 'enum_exists',
];

/** @return array{string, string, int}[] name, text and line of each token that means something */
function tokensOf(string $file): array
{
    $tokens = [];
    $line = 1;
    foreach (token_get_all(file_get_contents($file)) as $token) {
        $line = is_array($token) ? $token[2] : $line;
        $name = is_array($token) ? token_name($token[0]) : $token;
        if (!in_array($name, ['T_WHITESPACE', 'T_COMMENT', 'T_DOC_COMMENT'], true)) {
            $tokens[] = [$name, is_array($token) ? $token[1] : $token, $line];
        }
    }
    return $tokens;
}

/** Where the parenthesis that opens at or after a place is closed. */
function closing(array $tokens, int $at): int
{
    for ($depth = 0, $opened = false; $at < count($tokens); $at++) {
        $depth += ['(' => 1, ')' => -1][$tokens[$at][0]] ?? 0;
        $opened = $opened || $depth > 0;
        if ($opened && $depth === 0) {
            break;
        }
    }
    return $at;
}

/** What is wrong with the parameters and the result of a function that begins at a place. */
function signature(array $tokens, int $at): ?string
{
    $end = closing($tokens, $at);
    $texts = array_column(array_slice($tokens, $at, $end - $at), 1);
    if (end($texts) === ',') {
        return 'a comma after the last parameter';
    }
    if (array_intersect($texts, ['public', 'protected', 'private'])) {
        return 'a promoted parameter';
    }
    for ($next = $end; $next < count($tokens) && !in_array($tokens[$next][0], ['{', ';', 'T_DOUBLE_ARROW'], true); $next++) {
        $texts[] = $tokens[$next][1];
    }
    if (array_intersect($texts, ['mixed', 'never', 'static', '|'])) {
        return 'a type of PHP 8';
    }
    return null;
}

/** @return string[] what there is at a place */
function wrongAt(array $tokens, int $at): array
{
    [$name, $text] = $tokens[$at];
    [$before, $after, $later] = [$tokens[$at - 1][0] ?? '', $tokens[$at + 1][0] ?? '', $tokens[$at + 2][0] ?? ''];
    $wrong = [];
    if (in_array($name, WORDS, true)) {
        $wrong[] = $text;
    }
    if ($name === 'T_STRING' && $after === '(' && in_array($text, FUNCTIONS, true)) {
        $wrong[] = "$text()";
    }
    if ($name === 'T_FUNCTION' || $name === 'T_FN') {
        $wrong[] = signature($tokens, $at);
    }
    if ($name === 'T_CATCH' && $tokens[closing($tokens, $at) - 1][0] !== 'T_VARIABLE') {
        $wrong[] = 'catch without a variable';
    }
    if ($name === 'T_THROW' && !in_array($before, [';', '{', '}', ':', ')'], true)) {
        $wrong[] = 'throw inside an expression';
    }
    if ($name === 'T_STRING' && $after === ':' && in_array($before, ['(', ','], true)) {
        $wrong[] = 'a named argument';
    }
    if ($name === 'T_ELLIPSIS' && $after === ')') {
        $wrong[] = 'a function as a value: f(...)';
    }
    if ($name === 'T_VARIABLE' && $after === 'T_DOUBLE_COLON' && $later === 'T_CLASS') {
        $wrong[] = '$object::class';
    }
    return array_filter($wrong);
}

$found = 0;
$files = new RegexIterator(new RecursiveIteratorIterator(new RecursiveDirectoryIterator($argv[1])), '/\.php$/');
foreach ($files as $file) {
    $tokens = tokensOf((string) $file);
    foreach (array_keys($tokens) as $at) {
        foreach (wrongAt($tokens, $at) as $what) {
            echo "$file:{$tokens[$at][2]}: $what\n";
            $found++;
        }
    }
}
exit($found === 0 ? 0 : 1);
