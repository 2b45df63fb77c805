/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "fvMesh.H"
#include "globalIndex.H"
#include "labelIOList.H"

#include <algorithm>
#include <limits>
#include <vector>

// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

const Foam::fvMesh* Foam::functionObjects::penstockStream::meshOf
(
    word& field
) const
{
    const fvMesh* mesh =
    (
        runTime_.foundObject<fvMesh>(region_)
      ? &runTime_.lookupObject<fvMesh>(region_)
      : nullptr
    );

    // A colon also stands in names of fields, such as turbulenceProperties:R
    const std::string::size_type colon = field.find(':');
    if (colon != std::string::npos && !(mesh && componentsOf(*mesh, field)))
    {
        const word region(field.substr(0, colon));

        if (runTime_.foundObject<fvMesh>(region))
        {
            field = word(field.substr(colon + 1));
            mesh = &runTime_.lookupObject<fvMesh>(region);
        }
    }

    return mesh;
}


size_t Foam::functionObjects::penstockStream::partOf(const fvMesh& mesh)
{
    for (size_t i = 0; i < parts_.size(); ++i)
    {
        if (parts_[i].mesh == &mesh)
        {
            return i;
        }
    }

    const globalIndex cells(mesh.nCells());
    parts_.push_back({&mesh, cells.size(), cells.toGlobal(0)});

    return parts_.size() - 1;
}


Foam::string Foam::functionObjects::penstockStream::findMeshes()
{
    forAll(fields_, fieldi)
    {
        word field(fields_[fieldi]);
        const fvMesh* mesh = meshOf(field);

        if (!mesh)
        {
            const wordList objects(runTime_.sortedToc());
            string meshes;

            forAll(objects, i)
            {
                if (runTime_.foundObject<fvMesh>(objects[i]))
                {
                    meshes += (meshes.empty() ? "" : " ") + objects[i];
                }
            }

            return
                "this solver has no mesh " + region_ + ", it has (" + meshes
              + "): set region in the entry " + name() + " of controlDict"
                " ([solver] region of the study file), or write region:field";
        }
        if (!componentsOf(*mesh, field))
        {
            return
                "field " + fields_[fieldi] + " does not exist, or is not a field"
                " of cell values; this solver has " + available(*mesh)
              + " in the mesh " + mesh->name() + ": correct 'fields' in the"
                " entry " + name() + " of controlDict ([fields] of the study"
                " file)";
        }

        sources_.push_back({partOf(*mesh), field});
    }

    return string();
}


Foam::string Foam::functionObjects::penstockStream::announce()
{
    std::vector<uint64_t> shapes;
    std::vector<penstock_field> announced;

    for (const Part& part : parts_)
    {
        shapes.push_back(uint64_t(part.nCells));
    }

    forAll(fields_, fieldi)
    {
        const std::pair<size_t, word>& source = sources_[fieldi];

        announced.push_back
        ({
            fields_[fieldi].c_str(), scalarDtype,
            uint32_t(componentsOf(*parts_[source.first].mesh, source.second)),
            1, &shapes[source.first], 0
        });
    }

    // The server knows one mesh
    if (parts_.size() == 1)
    {
        announced.push_back
        ({
            "cell_centres", PENSTOCK_FLOAT64, 3, 1, &shapes[0], 1
        });
        announced.push_back
        ({
            "cell_volumes", PENSTOCK_FLOAT64, 1, 1, &shapes[0], 1
        });
    }

    const string problem
    (
        errorOf(penstock_announce(stream_, announced.data(), announced.size()))
    );

    return problem.empty() && Pstream::parRun() ? sendAddressing() : problem;
}


Foam::string Foam::functionObjects::penstockStream::sendAddressing()
{
    string problem;

    for (size_t parti = 0; parti < parts_.size() && problem.empty(); ++parti)
    {
        std::vector<size_t> announced;

        for (size_t fieldi = 0; fieldi < sources_.size(); ++fieldi)
        {
            if (sources_[fieldi].first == parti)
            {
                announced.push_back(fieldi);
            }
        }
        if (parts_.size() == 1) // cell centres and volumes
        {
            announced.push_back(sources_.size());
            announced.push_back(sources_.size() + 1);
        }

        problem = sendAddressing(parts_[parti], announced);
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendAddressing
(
    Part& part,
    const std::vector<size_t>& announced
)
{
    const fvMesh& mesh = *part.mesh;
    const labelIOList addressing
    (
        IOobject
        (
            "cellProcAddressing",
            mesh.facesInstance(),
            polyMesh::meshSubDir,
            mesh,
            IOobject::READ_IF_PRESENT,
            IOobject::NO_WRITE,
            false
        )
    );

    const bool known = addressing.size() == mesh.nCells();
    if (!returnReduce(known, penstockCompat::And()))
    {
        if (processorOrder_)
        {
            Info<< type() << " " << name() << ": no cellProcAddressing of the"
                << " mesh " << mesh.name() << "; cells are sent processor by"
                << " processor" << endl;
            return string();
        }

        // Every rank would say the same
        return
            "no cellProcAddressing in " + string(mesh.facesInstance()) + "/"
          + mesh.meshDir() + ", so that the order of the cells in the undecomposed"
            " mesh is not known: run decomposePar, or accept the order of the"
            " processors, which changes with the decomposition, by cellOrder"
            " processors; in the entry " + name() + " of controlDict";
    }

    const std::vector<int64_t> cells(addressing.begin(), addressing.end());
    string problem;

    for (const size_t fieldi : announced)
    {
        if (problem.empty())
        {
            problem = errorOf
            (
                penstock_indices
                (
                    stream_, fieldi, cells.data(), uint64_t(cells.size())
                )
            );
        }
    }
    part.firstCell = 0; // from here on, offsets count within this list

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendMesh()
{
    if (parts_.size() != 1)
    {
        return string();
    }

    const fvMesh& mesh = *parts_[0].mesh;
    const size_t centres = size_t(fields_.size());
    const size_t volumes = centres + 1;
    std::vector<double> values;
    string problem;

    if (penstock_wanted(stream_, centres))
    {
        const vectorField& c = mesh.cellCentres();

        values.reserve(3*size_t(c.size()));
        forAll(c, celli)
        {
            values.push_back(c[celli].x());
            values.push_back(c[celli].y());
            values.push_back(c[celli].z());
        }

        problem = sendStatic(centres, values, 3);
    }

    if (problem.empty() && penstock_wanted(stream_, volumes))
    {
        const scalarField& v = mesh.cellVolumes();

        values.assign(v.begin(), v.end());

        problem = sendStatic(volumes, values, 1);
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendStatic
(
    const size_t fieldi,
    const std::vector<double>& values,
    const uint64_t nComponents
)
{
    const double noTime = std::numeric_limits<double>::quiet_NaN();
    const uint64_t first = nComponents*uint64_t(parts_[0].firstCell);
    const uint64_t slice = nComponents*sliceCells;
    uint64_t sent = 0;
    string problem;

    // A message must not exceed the server's max_message
    do
    {
        const uint64_t n = std::min(slice, uint64_t(values.size()) - sent);

        problem = errorOf
        (
            penstock_send
            (
                stream_, fieldi, PENSTOCK_STATIC_STEP, noTime, PENSTOCK_FLOAT64,
                values.data() + sent, first + sent, n
            )
        );
        sent += n;
    } while (problem.empty() && sent < values.size());

    return problem;
}


// ************************************************************************* //
